// A conversation as a tree of plain objects: an edited message and a regenerated answer are further options beside the
// former ones, and nothing is lost. What is shown and sent is the path along the chosen options.

import { Answer } from "./answer.js";

const node = (fields) => ({ ...fields, options: [], chosen: 0 });

export const newRoot = () => node({ role: "root" });
export const userNode = (text, files = []) => node({ role: "user", text, files });
export const toolNode = (results) => node({ role: "tool", results });
export const answerNode = (answers, seed) => node({ role: "assistant", answers, seed });

export class Conversation {
  constructor(root = newRoot()) {
    this.root = root;
  }

  static restore(root) {
    const found = new Conversation(root);
    found.#restoreAnswers(root);
    return found;
  }

  // An answer that never began, since the page was left, is none.
  #restoreAnswers(root) {
    const left = [root];
    while (left.length) {
      const next = left.pop();
      if (next.answers) next.answers = next.answers.map((data) => Answer.restore(data));
      next.options = next.options.filter(({ answers }) => !answers || answers.some(({ tokens }) => tokens.length));
      next.chosen = Math.max(Math.min(next.chosen, next.options.length - 1), 0);
      left.push(...next.options);
    }
  }

  // The nodes that are shown, first to last.
  get path() {
    const nodes = [];
    for (let at = this.root; at.options.length; nodes.push(at)) at = at.options[at.chosen];
    return nodes;
  }

  get last() {
    return this.path.at(-1) ?? this.root;
  }

  parentOf(child) {
    const path = [this.root, ...this.path];
    return path[path.indexOf(child) - 1];
  }

  add(parent, child) {
    parent.chosen = parent.options.push(child) - 1;
  }

  remove(child) {
    const parent = this.parentOf(child);
    parent.options.splice(parent.options.indexOf(child), 1);
    parent.chosen = Math.max(parent.options.length - 1, 0);
  }

  clear() {
    this.root.options = [];
    this.root.chosen = 0;
  }

  // As the API takes them: all up to `end`, which is included.
  messages(end, system) {
    const path = this.path;
    const messages = path.slice(0, path.indexOf(end) + 1).flatMap(messagesOf);
    return system ? [{ role: "system", content: system }, ...messages] : messages;
  }
}

function messagesOf(at) {
  if (at.role === "user") return [{ role: "user", content: withFiles(at.text, at.files) }];
  if (at.role === "tool") return at.results.map(({ id, text }) => ({ role: "tool", tool_call_id: id, content: text }));
  const answer = shownAnswer(at);
  const message = { role: "assistant", content: answer.text("content") };
  if (!answer.calls.length) return [message];
  // A model continues its own thought after the results of its calls; thoughts of finished turns are not sent.
  const calls = answer.calls.map(({ id, name, arguments: given }) => ({
    id,
    type: "function",
    function: { name, arguments: given },
  }));
  return [{ ...message, reasoning_content: answer.text("reasoning") || undefined, tool_calls: calls }];
}

// Of two answers that are compared, the one that the conversation continues from.
export const shownAnswer = (at) => at.answers.find((answer) => answer.tokens.length) ?? at.answers[0];

// Each file in a code fence that is longer than any in its text.
function withFiles(text, files) {
  const blocks = files.map((file) => {
    const longest = Math.max(2, ...(file.text.match(/`{3,}/g) ?? []).map((ticks) => ticks.length));
    const fence = "`".repeat(longest + 1);
    return `${file.name}\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...blocks, text].filter((part) => part).join("\n\n");
}

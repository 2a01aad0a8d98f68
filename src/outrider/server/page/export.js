// The conversation as a file.

import { shownAnswer } from "./conversation.js";

function download(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const stamp = () => new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");

// The messages as the API takes them, with the figures of the answers.
export function exportJson(conversation, model, system) {
  const messages = conversation.messages(conversation.last, system);
  const answers = conversation.path.filter((node) => node.answers);
  const stats = answers.map((node) => node.answers.map(({ drafting, stats: given }) => ({ drafting, ...given })));
  const text = JSON.stringify({ model, messages, stats }, null, 2);
  download(`conversation-${stamp()}.json`, "application/json", text);
}

export function exportMarkdown(conversation, model, system) {
  const sections = conversation.path.map((node) => section(node, model));
  if (system) sections.unshift(`## System\n\n${system}`);
  download(`conversation-${stamp()}.md`, "text/markdown", `${sections.join("\n\n")}\n`);
}

function section(node, model) {
  if (node.role === "user")
    return ["## You", ...node.files.map(({ name, text }) => fenced(text, name)), node.text].join("\n\n");
  if (node.role === "tool")
    return ["## Results", ...node.results.map(({ name, text }) => `${name}: ${text}`)].join("\n\n");
  const answer = shownAnswer(node);
  const thought = answer.text("reasoning").trim().replace(/^/gm, "> ");
  const calls = answer.calls.map((call) => fenced(call.arguments, `Calls ${call.name}`));
  return [`## ${model}`, thought === "> " ? "" : thought, answer.text("content"), ...calls]
    .filter((part) => part)
    .join("\n\n");
}

const fenced = (text, name) => `${name}\n\n~~~~~\n${text}\n~~~~~`;

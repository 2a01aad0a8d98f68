// One answer on the page: its thought, text and calls, or its tokens, and the figures.

import { MarkdownView } from "./markdown.js";
import { endMark, nodesOf, sourceName } from "./marks.js";
import { setTabStop } from "./tips.js";

const REFRESH_MILLISECONDS = 80; // drawing more often takes time from the model on the same machine

export const seconds = (time) => (time < 0.1 ? `${(1000 * time).toFixed(1)} ms` : `${time.toFixed(2)} s`);

export class AnswerView {
  // markdown: whether the text is read as Markdown. named: whether a heading tells it from another answer.
  constructor(answer, { markdown, named }) {
    Object.assign(this, { answer, markdown });
    this.name = answer.drafting ? "With drafting" : "Without drafting";
    this.element = document.getElementById("panel-template").content.cloneNode(true).firstElementChild;
    this.box = this.element.querySelector(".answer");
    this.element.querySelector("h3").textContent = this.name;
    this.element.querySelector("h3").hidden = !named;
    this.box.setAttribute("aria-label", named ? `Answer ${this.name.toLowerCase()}` : "Answer");
    this.timer = 0;
    this.others = false;
    this.reset();
    if (answer.tokens.length) this.note(this.summary());
  }

  reset() {
    this.box.replaceChildren();
    this.shown = []; // a view for each part
    this.refresh();
    this.finish();
  }

  // Shows the tokens one after the other, as the model wrote them, or its parts.
  showTokens(tokens) {
    this.tokens = tokens;
    this.reset();
  }

  start() {
    this.box.classList.add("streaming");
    this.note("");
  }

  // Takes a chunk of the stream.
  add(chunk) {
    this.answer.add(chunk);
    this.timer ||= setTimeout(() => this.refresh(), REFRESH_MILLISECONDS);
  }

  // The stream has ended, be it too early. others: other requests were running at the same time.
  conclude(others) {
    this.box.classList.remove("streaming");
    this.others = others;
    this.refresh();
    this.finish();
    this.note(this.summary());
  }

  refresh() {
    clearTimeout(this.timer);
    this.timer = 0;
    const parts = this.tokens ? [this.answer.whole] : this.answer.parts;
    parts.forEach((part, i) => {
      if (!this.shown[i]) {
        this.shown[i] = partView(this.answer, part, this.markdown && !this.tokens);
        this.box.append(this.shown[i].element);
      }
      // Only the last part grows.
      if (i >= this.shown.length - 2) this.shown[i].update(part);
    });
    setTabStop(this.box);
    this.figures();
  }

  finish() {
    const parts = this.tokens ? [this.answer.whole] : this.answer.parts;
    this.shown.forEach((view, i) => view.finish(parts[i]));
    this.box.querySelector(".end")?.remove();
    if ((this.tokens || !this.markdown) && this.answer.endToken) this.box.append(endMark(this.answer));
    setTabStop(this.box);
  }

  figure(name, text) {
    this.element.querySelector(`[data-figure="${name}"]`).textContent = text;
  }

  note(text) {
    this.figure("note", text);
  }

  figures() {
    const { tokens, stats, passes, firstTokens, firstAt, lastAt } = this.answer;
    const decoded = tokens.length - firstTokens;
    const perPass = stats?.tokens_per_pass ?? decoded / passes;
    const speed = stats?.decode_tokens_per_second ?? (1000 * decoded) / Math.max(lastAt - firstAt, 1);
    const accepted = tokens.filter(({ source }) => source !== null).length;
    this.figure("tokens", String(tokens.length));
    this.figure("perPass", passes ? perPass.toFixed(2) : "–");
    this.figure("speed", passes ? speed.toFixed(1) : "–");
    this.figure(
      "accepted",
      stats ? `${accepted} of ${stats.drafted}${share(accepted, stats.drafted)}` : String(accepted),
    );
  }

  // What the figures do not say: the prompt, where the drafts came from, and why it ended.
  summary() {
    const { stats, finishReason, acceptedBySource, done, tokens } = this.answer;
    const notes = [];
    if (stats) {
      const { prefill_seconds: prefill, prompt_tokens: prompt, reused_tokens: reused } = stats;
      const cached = reused ? ` (${reused} from the cache)` : "";
      notes.push(`Prompt: ${prompt} tokens${cached} in ${seconds(prefill)}. Answer: ${seconds(stats.decode_seconds)}.`);
    }
    const sources = Object.entries(acceptedBySource).map(([source, n]) => `${n} by ${sourceName(source)}`);
    if (sources.length) notes.push(`Accepted: ${sources.join(", ")}.`);
    if (finishReason === "length") notes.push("Stopped at the limit of tokens: see max tokens in the settings.");
    if (!done) notes.push(tokens.length ? "Not finished." : "Not run.");
    if (this.others)
      notes.push("Other requests were running: they shared the machine, so these speeds are not its best.");
    return notes.join(" ");
  }
}

const share = (part, whole) => (whole ? ` (${Math.round((100 * part) / whole)} %)` : "");

function partView(answer, part, markdown) {
  if (part.kind === "calls") return new CallsView();
  if (part.kind === "reasoning") return new ThoughtView(answer, part, markdown);
  return textView(answer, part, markdown);
}

function textView(answer, part, markdown) {
  const element = document.createElement("div");
  element.className = markdown ? "markdown" : "plain";
  const nodes = (start, end) => nodesOf(answer, part, start, end);
  if (!markdown) return new PlainView(element, nodes);
  const view = new MarkdownView(element, nodes);
  return { element, update: ({ text }) => view.update(text), finish: ({ text }) => view.finish(text) };
}

class PlainView {
  constructor(element, nodes) {
    Object.assign(this, { element, nodes, length: 0 });
  }

  update({ text }) {
    this.element.append(this.nodes(this.length, text.length));
    this.length = text.length;
  }

  finish(part) {
    this.update(part);
  }
}

// Folded; what it holds is drawn all the same, so that it can be unfolded while it grows.
class ThoughtView {
  constructor(answer, part, markdown) {
    this.answer = answer;
    this.element = document.createElement("details");
    this.element.className = "thought";
    this.summary = this.element.appendChild(document.createElement("summary"));
    this.inner = textView(answer, part, markdown);
    this.element.append(this.inner.element);
    this.element.addEventListener("toggle", () => setTabStop(this.element.closest(".answer")));
  }

  update(part) {
    const open = this.element.closest(".streaming") && this.answer.parts.at(-1) === part;
    const words = part.text.split(/\s+/).filter((word) => word).length;
    this.summary.textContent = `${open ? "Thinking …" : "Thought"} (${words} words)`;
    this.inner.update(part);
  }

  finish(part) {
    this.update(part);
    this.inner.finish(part);
  }
}

class CallsView {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "calls";
  }

  update({ calls }) {
    this.element.replaceChildren(...calls.map(callElement));
  }

  finish(part) {
    this.update(part);
  }
}

function callElement({ name, arguments: given }) {
  const element = document.createElement("div");
  element.className = "call";
  const head = document.createElement("p");
  head.append("Calls ", Object.assign(document.createElement("code"), { textContent: name }));
  const block = document.createElement("pre");
  block.textContent = indented(given);
  block.tabIndex = 0;
  block.role = "group";
  block.setAttribute("aria-label", `Arguments of ${name}`);
  element.append(head, block);
  return element;
}

function indented(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

// The turns of a conversation on the page: what was asked, what was answered, and what can be done with either.

import { AnswerView } from "./answer_view.js";
import { comparisonElement } from "./comparison.js";
import { shownAnswer } from "./conversation.js";
import { copyButton } from "./copy_button.js";
import { sends } from "./sending_key.js";

const template = (id) => document.getElementById(id).content.cloneNode(true).firstElementChild;

// changes: whether it changes the conversation, which cannot be done while an answer is on its way.
function action(name, does, { label = name, changes = true } = {}) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
  if (label !== name) button.setAttribute("aria-label", label);
  button.toggleAttribute("data-changes", changes);
  button.addEventListener("click", does);
  return button;
}

// A turn with its versions: an edited message or a regenerated answer is one more.
class TurnView {
  constructor(id, node, actions) {
    Object.assign(this, { node, actions, element: template(id) });
    this.versions = this.element.querySelector(".versions");
    this.count = document.createElement("span");
    this.former = action("‹", () => actions.choose(node, -1), { label: "Former version", changes: false });
    this.next = action("›", () => actions.choose(node, 1), { label: "Next version", changes: false });
    this.versions.append(this.former, this.count, this.next);
  }

  place(parent, last) {
    const index = parent.options.indexOf(this.node);
    this.versions.hidden = parent.options.length < 2;
    this.count.textContent = `${index + 1}/${parent.options.length}`;
    this.former.disabled = index === 0;
    this.next.disabled = index === parent.options.length - 1;
    this.element.classList.toggle("last", last);
  }

  // After a step to this version: the same button, or the other one at the end.
  focusVersions(step) {
    const [wanted, other] = step < 0 ? [this.former, this.next] : [this.next, this.former];
    (wanted.disabled ? other : wanted).focus();
  }
}

export class UserView extends TurnView {
  constructor(node, actions, { chat }) {
    super("user-template", node, actions);
    this.chat = chat;
    this.element.querySelector("h2").textContent = chat ? "You" : "Text";
    this.said = this.element.querySelector(".said");
    this.said.textContent = node.text;
    this.element.querySelector(".files").append(...node.files.map(fileElement));
    const label = chat ? "Edit message" : "Edit text";
    this.element.querySelector(".actions").prepend(action("Edit", () => this.edit(), { label }));
  }

  edit() {
    const form = template("edit-template");
    const field = form.querySelector("textarea");
    field.value = this.node.text;
    const close = () => {
      form.replaceWith(this.said);
      this.element.querySelector(".actions").hidden = false;
      this.element.querySelector(".actions button").focus();
    };
    form.querySelector("[type=button]").addEventListener("click", close);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (sends(event, this.chat)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close();
      this.actions.edit(this.node, field.value);
    });
    this.said.replaceWith(form);
    this.element.querySelector(".actions").hidden = true;
    field.focus();
  }
}

function fileElement({ name, text }) {
  const element = document.createElement("details");
  const content = Object.assign(document.createElement("pre"), { textContent: text, tabIndex: 0, role: "group" });
  content.setAttribute("aria-label", name);
  element.append(Object.assign(document.createElement("summary"), { textContent: name }), content);
  return element;
}

export class ToolView extends TurnView {
  constructor(node, actions) {
    super("user-template", node, actions);
    this.element.querySelector("h2").textContent = "Results";
    this.element.querySelector(".said").textContent = node.results
      .map(({ name, text }) => `${name}: ${text}`)
      .join("\n");
  }
}

export class AssistantView extends TurnView {
  constructor(node, actions, { chat, model }) {
    super("assistant-template", node, actions);
    this.element.querySelector("h2").textContent = model;
    const named = node.answers.length > 1;
    this.panels = node.answers.map((answer) => new AnswerView(answer, { markdown: chat, named }));
    this.element.querySelector(".panels").append(...this.panels.map((panel) => panel.element));
    this.element.querySelector(".actions").prepend(...this.buttons(chat));
    this.results = this.element.querySelector(".results");
    this.results.addEventListener("submit", (event) => {
      event.preventDefault();
      this.actions.answerCalls(this.node, this.givenResults());
    });
    if (node.answers[0].tokens.length) this.conclude();
  }

  buttons(chat) {
    const text = () => shownAnswer(this.node).text("content");
    const copy = copyButton("Copy answer", text);
    const again = action("Regenerate", () => this.actions.regenerate(this.node), { label: "Regenerate answer" });
    if (!chat)
      return [copy, again, action("Continue", () => this.actions.goOn(this.node), { label: "Continue the text" })];
    const tokens = action(
      "Tokens",
      () => {
        const pressed = tokens.getAttribute("aria-pressed") !== "true";
        tokens.setAttribute("aria-pressed", String(pressed));
        for (const panel of this.panels) panel.showTokens(pressed);
      },
      { label: "Show as tokens", changes: false },
    );
    tokens.setAttribute("aria-pressed", "false");
    tokens.title = "The text as the model wrote it, token by token, thought and calls included";
    return [copy, again, tokens];
  }

  // All answers have ended: shows their comparison, if there are two, and asks for the results of calls.
  conclude() {
    this.element.querySelector(".seed").textContent = `Seed ${this.node.seed}`;
    const [drafted, plain] = this.node.answers;
    if (plain?.tokens.length && drafted.tokens.length) {
      this.element.querySelector(".comparison")?.remove();
      this.element.querySelector(".panels").after(comparisonElement(drafted, plain));
      if (drafted.differsAt !== null) for (const panel of this.panels) panel.reset();
    }
    const { calls } = shownAnswer(this.node);
    this.results.querySelector(".fields").replaceChildren(...calls.map(resultField));
    this.results.classList.toggle("asked", calls.length > 0);
  }

  givenResults() {
    const fields = [...this.results.querySelectorAll("textarea")];
    return shownAnswer(this.node).calls.map(({ id, name }, i) => ({ id, name, text: fields[i].value }));
  }
}

function resultField({ name }) {
  const label = document.createElement("label");
  const field = Object.assign(document.createElement("textarea"), { rows: 2, required: true });
  label.append(`Result of ${name}`, field);
  return label;
}

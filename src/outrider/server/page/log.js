// The path of a conversation on the page, and its end kept in view.

import { AssistantView, ToolView, UserView } from "./turn_view.js";

const VIEWS = { user: UserView, tool: ToolView, assistant: AssistantView };
const NEAR_THE_END = 50; // pixels

export class Log {
  constructor(box, actions) {
    Object.assign(this, { box, actions, views: new WeakMap() });
    this.following = true; // until one scrolls away from the end
    addEventListener("scroll", () => {
      this.following = innerHeight + scrollY > document.documentElement.scrollHeight - NEAR_THE_END;
    });
    new ResizeObserver(() => {
      if (this.busy) this.follow();
    }).observe(box);
  }

  // Shows a path. Turns that are there already stay as they are, with their focus.
  show(conversation, options) {
    this.options = options;
    this.box.classList.toggle("completion", !options.chat);
    const { path, root } = conversation;
    const elements = path.map((node, i) => {
      const view = this.viewOf(node);
      view.place(path[i - 1] ?? root, i === path.length - 1);
      return view.element;
    });
    const differs = elements.findIndex((element, i) => this.box.children[i] !== element);
    const kept = differs < 0 ? elements.length : differs;
    while (this.box.children.length > kept) this.box.lastChild.remove();
    this.box.append(...elements.slice(kept));
  }

  viewOf(node) {
    if (!this.views.has(node)) this.views.set(node, new VIEWS[node.role](node, this.actions, this.options));
    return this.views.get(node);
  }

  // While an answer is on its way, buttons that would change the conversation rest.
  rest(busy) {
    this.busy = busy;
    for (const button of this.box.querySelectorAll("button[data-changes]")) button.disabled = busy;
    this.box.classList.toggle("busy", busy);
  }

  toEnd() {
    this.following = true;
    this.follow();
  }

  follow() {
    if (this.following) scrollTo(0, document.documentElement.scrollHeight);
  }
}

// Markdown to elements. markdown-it finds its structure; the elements are made here, by name from a fixed list, and all
// text is put in as text: nothing that a model writes is ever read as HTML, and nothing is loaded.

import { copyButton } from "./copy_button.js";
import MarkdownIt from "./vendor/markdown-it.esm.min.mjs";

// Without text_join, each escape and entity stays a token of its own, so that its source is known.
const parser = new MarkdownIt({ html: false, linkify: false }).disable("text_join");

// Headings of an answer rank below those of the page.
const ELEMENTS = {
  paragraph_open: "p",
  blockquote_open: "blockquote",
  bullet_list_open: "ul",
  ordered_list_open: "ol",
  list_item_open: "li",
  table_open: "table",
  thead_open: "thead",
  tbody_open: "tbody",
  tr_open: "tr",
  th_open: "th",
  td_open: "td",
  em_open: "em",
  strong_open: "strong",
  s_open: "s",
};
const HEADINGS = { h1: "h3", h2: "h4", h3: "h5", h4: "h6", h5: "h6", h6: "h6" };
const LINKS = /^(https?|mailto):/i;

// Keeps an element in step with a text that grows at its end. Blocks before the last one cannot change any more, so
// only the last is parsed and made anew; a selection in the others stays.
export class MarkdownView {
  // nodesOf(start, end): the nodes for a stretch of the source.
  constructor(box, nodesOf) {
    Object.assign(this, { box, nodesOf });
    this.reset();
  }

  reset() {
    this.box.replaceChildren();
    this.environment = {}; // link references
    this.settled = 0; // where the last block begins in the source
    this.kept = 0; // how many elements come before it
  }

  update(source) {
    const tokens = parser.parse(source.slice(this.settled), this.environment);
    while (this.box.childNodes.length > this.kept) this.box.lastChild.remove();
    const builder = new Builder(source, this.settled, this.nodesOf);
    this.box.append(builder.build(tokens));
    const last = tokens.findLast((token) => token.level === 0 && token.map);
    if (last) this.settled = builder.lineStart(last.map[0]);
    this.kept = Math.max(this.box.childNodes.length - 1, 0);
  }

  // The same once the text is complete: a reference may have been used before it was defined.
  finish(source) {
    if (Object.keys(this.environment.references ?? {}).length) this.reset();
    this.update(source);
  }
}

class Builder {
  constructor(source, start, nodesOf) {
    Object.assign(this, { source, nodesOf, at: start });
    this.lines = [start];
    for (const { index, 0: end } of source.slice(start).matchAll(/\r\n?|\n/g))
      this.lines.push(start + index + end.length);
  }

  lineStart(line) {
    return this.lines[line] ?? this.source.length;
  }

  build(tokens) {
    const root = document.createDocumentFragment();
    const open = [root];
    for (const token of tokens) {
      if (token.map) this.at = Math.max(this.at, this.lineStart(token.map[0]));
      const parent = open.at(-1);
      if (token.nesting > 0) open.push(token.hidden ? parent : parent.appendChild(this.element(token)));
      else if (token.nesting < 0) open.pop();
      else parent.append(this.leaf(token));
    }
    for (const table of root.querySelectorAll("table")) scrollable(table, "Table");
    return root;
  }

  element(token) {
    if (token.type === "link_open") return link(token.attrGet("href"));
    const element = document.createElement(HEADINGS[token.tag] ?? ELEMENTS[token.type] ?? "span");
    if (token.type === "ordered_list_open") element.start = token.attrGet("start") ?? 1;
    if (token.type === "th_open") element.scope = "col";
    const alignment = /text-align:(center|right)/.exec(token.attrGet("style") ?? "");
    if (alignment) element.classList.add(alignment[1]);
    return element;
  }

  leaf(token) {
    switch (token.type) {
      case "inline":
        return this.build(token.children);
      case "softbreak":
        return "\n";
      case "hardbreak":
        return document.createElement("br");
      case "hr":
        return document.createElement("hr");
      case "code_inline":
        return wrapped("code", this.text(token.content));
      case "image":
        return image(token);
      case "fence":
      case "code_block":
        return this.code(token);
      default:
        return this.text(token.content, token.type === "text_special" ? token.markup : token.content);
    }
  }

  code(token) {
    const lines = document.createDocumentFragment();
    for (const line of token.content.match(/.*\n|.+$/g) ?? []) lines.append(this.text(line));
    const block = wrapped("pre", wrapped("code", lines));
    block.tabIndex = 0; // can be scrolled by keyboard
    block.role = "group";
    const language = token.info?.trim().split(/\s/)[0] ?? "";
    block.setAttribute("aria-label", `Code ${language}`.trim());
    const head = wrapped("div", language);
    head.className = "code-head";
    head.append(copyButton("Copy code", () => token.content));
    const figure = wrapped("div", head);
    figure.className = "code";
    figure.append(block);
    return figure;
  }

  // The nodes of a text, looked for in the source from where the last one ended.
  text(shown, written = shown) {
    const start = written ? this.source.indexOf(written, this.at) : -1;
    if (start < 0) return document.createTextNode(shown);
    this.at = start + written.length;
    return shown === written ? this.nodesOf(start, this.at) : document.createTextNode(shown);
  }
}

function wrapped(name, child) {
  const element = document.createElement(name);
  element.append(child);
  return element;
}

// Only what leads to a page or a letter is a link. It opens apart, and is not told where it came from.
function link(address) {
  const element = document.createElement("a");
  if (!LINKS.test(address)) return element;
  element.href = address;
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  element.title = address;
  return element;
}

// An image is not loaded, since a request may carry what was said to any address: it is a link that names it.
function image(token) {
  const element = link(token.attrGet("src"));
  element.textContent = `image: ${token.content || token.attrGet("src")}`;
  return element;
}

function scrollable(table, name) {
  const box = document.createElement("div");
  box.className = "scroll";
  box.tabIndex = 0;
  box.role = "group";
  box.setAttribute("aria-label", name);
  table.replaceWith(box);
  box.append(table);
}

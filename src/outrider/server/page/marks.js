// Tokens as elements: what was drafted and accepted, and what replaced a rejected draft, is a mark with a tooltip.

const SOURCES = {
  prediction: "the prediction",
  grammar: "the grammar",
  mtp: "the MTP drafter",
  lookup: "lookup",
  history: "lookup in earlier requests",
};

export const sourceName = (source) => SOURCES[source] ?? source;

// The nodes of a stretch of an answer's part. Plain text stays text.
export function nodesOf(answer, part, start, end) {
  const nodes = document.createDocumentFragment();
  for (const [text, index] of answer.pieces(part, start, end)) nodes.append(piece(answer, text, index));
  return nodes;
}

function piece(answer, text, index) {
  const token = answer.tokens[index];
  const differs = index !== null && index === answer.differsAt;
  if (!token || (token.source === null && token.rejected === null && !differs)) return document.createTextNode(text);
  const element = document.createElement(token.source === null && token.rejected === null ? "span" : "mark");
  element.textContent = text;
  if (differs) element.classList.add("differs");
  if (element.localName === "mark") describe(element, token, quoted(token.text));
  return element;
}

// The end of the turn as an element, for it may have been drafted like any other token.
export function endMark(answer) {
  const token = answer.endToken;
  const element = document.createElement(token.source === null && token.rejected === null ? "span" : "mark");
  element.textContent = "end";
  element.classList.add("end");
  if (element.localName === "mark") describe(element, token, "to end");
  return element;
}

function describe(mark, { source, rejected }, chosen) {
  mark.tabIndex = -1;
  if (source === null) mark.classList.add("corrected");
  else mark.dataset.source = source;
  mark.dataset.tip =
    source === null
      ? `${quoted(rejected)} was drafted here; the model chose ${chosen}`
      : `drafted by ${sourceName(source)}, and accepted`;
}

// A text between quotes, its control characters and the spaces at its ends made visible.
export function quoted(text) {
  const names = { "\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣" };
  const code = (c) => names[c] ?? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
  return `“${text.replace(/[\u0000-\u001f]|^ +| +$/g, (found) => [...found].map(code).join(""))}”`;
}

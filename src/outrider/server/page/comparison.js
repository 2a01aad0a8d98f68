// Two answers to one request, with drafting and without: whether they are equal, and how long each took.

import { quoted } from "./marks.js";
import { seconds } from "./answer_view.js";

// What is to be said of the tokens of two answers; `complete` if both came to their end.
function equality(a, b, complete) {
  const [longer, shorter] = [Math.max(a.length, b.length), Math.min(a.length, b.length)];
  let at = 0;
  while (at < shorter && a[at].id === b[at].id) at += 1;
  if (at === longer || (!complete && at === shorter)) {
    return complete
      ? { same: true, text: `identical: ${at} of ${longer} tokens` }
      : { same: true, text: `identical as far as they got: ${at} tokens of each` };
  }
  const [left, right] = [a, b].map((tokens) => (tokens[at] ? quoted(tokens[at].text) : "the end"));
  const text = `first difference at token ${at + 1} of ${longer}: ${left} with drafting, ${right} without`;
  return { same: false, at, text };
}

// The same as { same, at, text }; the answers keep where they differ.
export function compare(drafted, plain) {
  const found = equality(drafted.tokens, plain.tokens, drafted.done && plain.done);
  drafted.differsAt = plain.differsAt = found.same ? null : found.at;
  return found;
}

export function comparisonElement(drafted, plain) {
  const block = document.getElementById("comparison-template").content.cloneNode(true).firstElementChild;
  const { same, text } = compare(drafted, plain);
  const line = block.querySelector(".equality");
  line.textContent = text;
  line.classList.add(same ? "same" : "different");
  if (drafted.stats && plain.stats) {
    const longest = Math.max(drafted.stats.decode_seconds, plain.stats.decode_seconds);
    for (const answer of [drafted, plain]) block.querySelector("tbody").append(row(answer, longest));
    block.querySelector(".ratio").textContent = ratio(drafted.stats.decode_seconds, plain.stats.decode_seconds);
  } else {
    block.querySelector("table").remove();
    block.querySelector(".note").remove();
    block.querySelector(".ratio").textContent = "Stopped before both had ended: their times cannot be compared.";
  }
  return block;
}

function row({ drafting, stats }, longest) {
  const cells = [seconds(stats.decode_seconds), stats.decode_tokens_per_second.toFixed(1), String(stats.target_passes)];
  const tr = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = drafting ? "on" : "off";
  tr.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  const bar = Object.assign(document.createElement("span"), { className: drafting ? "bar drafting" : "bar" });
  bar.style.setProperty("--share", `${longest ? (100 * stats.decode_seconds) / longest : 0}%`);
  tr.children[1].append(bar);
  return tr;
}

function ratio(drafted, plain) {
  if (!drafted || !plain) return "Too short to compare times.";
  const times = `${(plain / drafted).toFixed(2)} times as fast`;
  const both = `${seconds(drafted)} instead of ${seconds(plain)}`;
  if (Math.abs(plain / drafted - 1) < 0.02) return `About as fast with drafting as without: ${both}.`;
  return drafted > plain ? `Drafting did not pay here: ${times}, ${both}.` : `Drafting made it ${times}: ${both}.`;
}

// One answer as data: its tokens, and the parts that its tokens make up. It is stored as JSON.

const LABEL = "thought\n"; // written by the model between the mark that opens a thought and its text

export class Answer {
  constructor(drafting) {
    this.drafting = drafting;
    this.tokens = []; // { id, text, source, rejected }
    this.starts = []; // where each token's text begins in `raw`
    this.raw = ""; // the texts of all tokens
    this.parts = []; // { kind: "reasoning" | "content", text, spans } and { kind: "calls", calls }
    this.aligned = 0; // up to where `raw` has been found in the parts
    this.passes = 0; // without the prompt's, which gives the first token
    this.firstTokens = 0;
    this.firstAt = 0;
    this.lastAt = 0;
    this.stats = null;
    this.finishReason = null;
    this.differsAt = null; // the token from which a compared answer differs
  }

  static restore(data) {
    const answer = Object.assign(new Answer(data.drafting), data);
    for (const { text } of answer.tokens) answer.#place(text);
    return answer;
  }

  // Without what `restore` derives.
  toJSON() {
    const { raw, starts, ...kept } = this;
    return kept;
  }

  #place(text) {
    this.starts.push(this.raw.length);
    this.raw += text;
  }

  get done() {
    return this.finishReason !== null;
  }

  get calls() {
    return this.parts.flatMap((part) => part.calls ?? []);
  }

  // All text of one kind of part.
  text(kind) {
    return this.parts
      .filter((part) => part.kind === kind)
      .map((part) => part.text)
      .join("");
  }

  // Whether the model ended its turn with the last token, which then has no text.
  get endToken() {
    const last = this.tokens.at(-1);
    return this.finishReason !== null && this.finishReason !== "length" && last?.text === "" ? last : null;
  }

  get acceptedBySource() {
    const counts = {};
    for (const { source } of this.tokens) if (source !== null) counts[source] = (counts[source] ?? 0) + 1;
    return counts;
  }

  // Takes a chunk of the stream.
  add({ choices: [choice], outrider: marks }) {
    if (!choice) return; // the chunk with the usage
    const delta = choice.delta ?? { content: choice.text };
    this.#addTokens(marks);
    if (delta.reasoning_content) this.#extend("reasoning", delta.reasoning_content);
    if (delta.content) this.#extend("content", delta.content);
    if (delta.tool_calls) this.#addCalls(delta.tool_calls);
    this.finishReason = choice.finish_reason;
    this.stats = marks.stats ?? null;
  }

  #addTokens({ token_ids: ids, texts, sources, rejected_texts: rejected }) {
    if (!ids.length) return;
    this.lastAt = performance.now();
    if (this.firstAt) this.passes += 1;
    else [this.firstAt, this.firstTokens] = [this.lastAt, ids.length];
    ids.forEach((id, i) => {
      this.tokens.push({ id, text: texts[i], source: sources[i], rejected: rejected[i] });
      this.#place(texts[i]);
    });
  }

  // Token texts run ahead of the parts and also hold labels and calls, so each piece of a part is searched for in them.
  #extend(kind, text) {
    let part = this.parts.at(-1);
    if (part?.kind !== kind) {
      part = { kind, text: "", spans: [] };
      this.parts.push(part);
      if (kind === "reasoning" && this.raw.startsWith(LABEL, this.aligned)) this.aligned += LABEL.length;
    }
    const found = this.raw.indexOf(text, this.aligned);
    if (found >= 0) {
      const last = part.spans.at(-1);
      const adjoins = last && last.at + last.length === part.text.length && last.raw + last.length === found;
      if (adjoins) last.length += text.length;
      else part.spans.push({ at: part.text.length, raw: found, length: text.length });
      this.aligned = found + text.length;
    }
    part.text += text;
  }

  #addCalls(deltas) {
    if (this.parts.at(-1)?.kind !== "calls") this.parts.push({ kind: "calls", calls: [] });
    const { calls } = this.parts.at(-1);
    for (const { index, id, function: called } of deltas) {
      const call = calls.find((other) => other.index === index);
      if (call) call.arguments += called.arguments ?? "";
      else calls.push({ index, id, name: called.name, arguments: called.arguments ?? "" });
    }
    this.aligned = this.raw.length;
  }

  // All tokens as one part, for the view of tokens.
  get whole() {
    return { kind: "tokens", text: this.raw, spans: [{ at: 0, raw: 0, length: this.raw.length }] };
  }

  // A stretch of a part, cut where another token begins: [text, index of its token, or null where it is not known].
  pieces(part, start, end) {
    const found = [];
    let at = start;
    const put = (to, token) => {
      if (to > at) found.push([part.text.slice(at, to), token]);
      at = Math.max(at, to);
    };
    for (const span of spansFrom(part.spans, start)) {
      if (span.at >= end) break;
      put(span.at, null);
      const stop = Math.min(span.at + span.length, end);
      for (let token = this.#tokenAt(span.raw + at - span.at); at < stop; token += 1) {
        const next = this.starts[token + 1] ?? Infinity;
        put(Math.min(stop, span.at + next - span.raw), token);
      }
    }
    put(end, null);
    return found;
  }

  // The last token that begins at `offset` of `raw` or before: those without a text of their own are passed over.
  #tokenAt(offset) {
    return countUntil(this.starts.length, (i) => this.starts[i] > offset) - 1;
  }
}

function* spansFrom(spans, start) {
  const first = countUntil(spans.length, (i) => spans[i].at + spans[i].length > start);
  for (let i = first; i < spans.length; i += 1) yield spans[i];
}

// The least index that is past, in an order where all after it are past too.
function countUntil(length, past) {
  let [low, high] = [0, length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (past(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

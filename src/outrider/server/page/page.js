// The page of `outrider serve`. What a model says is put in as text, never as HTML.

const byId = (id) => document.getElementById(id);
const SOURCES = { mtp: "the MTP drafter", lookup: "lookup" };

let key = ""; // nowhere else
let model = null; // the server's entry in /v1/models
let messages = []; // the turns of the conversation
let running = null; // the AbortController of what runs

// -- the server ----------------------------------------------------------------------------------------------------

class ApiError extends Error {
  constructor(title, message, status = 0) {
    super(message);
    this.title = title;
    this.status = status;
  }
}

async function call(path, { body, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const post = body && { method: "POST", body: JSON.stringify(body) };
  if (post) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { headers, signal, cache: "no-store", ...post });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("The server cannot be reached", problem.message);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text();
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // not the server's own words: a proxy's, perhaps
  }
  const wait = response.headers.get("retry-after");
  const advice = wait ? ` (try again in ${wait} s)` : "";
  return new ApiError(`${response.status} ${error.type ?? response.statusText}`, (error.message ?? text) + advice, response.status);
}

async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError("The stream ended early", "the server closed the connection before the answer's end");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.type, chunk.error.message);
      yield chunk;
    }
  }
}

// -- one answer ----------------------------------------------------------------------------------------------------

class Answer {
  constructor(drafting) {
    this.drafting = drafting;
    this.name = drafting ? "With drafting" : "Without drafting";
    this.panel = byId("panel-template").content.cloneNode(true).firstElementChild;
    this.box = this.panel.querySelector(".answer");
    this.panel.querySelector("h2").textContent = this.name;
    this.panel.setAttribute("aria-label", this.name);
    this.box.setAttribute("aria-label", `Answer ${this.name.toLowerCase()}`);
    this.tokens = []; // { id, text, element }
    this.shown = ""; // all that the elements say
    this.text = ""; // as the API gives it
    this.passes = 0; // those that decoded; the first token comes out of the prompt's
    this.firstTokens = 0;
    this.firstAt = 0;
    this.acceptedBySource = {};
    this.tabStop = false; // whether there is a mark that Tab comes to
    this.stats = null;
    this.finishReason = null;
  }

  get done() {
    return this.finishReason !== null;
  }

  figure(name, text) {
    this.panel.querySelector(`[data-figure="${name}"]`).textContent = text;
  }

  add({ choices: [choice], outrider: marks }) {
    this.text += choice.delta ? choice.delta.content : choice.text;
    this.finishReason = choice.finish_reason;
    this.stats = marks.stats ?? null;
    const parts = document.createDocumentFragment();
    marks.token_ids.forEach((id, i) => parts.append(this.element(id, i, marks)));
    this.box.append(parts);
    if (this.done && this.text.length > this.shown.length && this.text.startsWith(this.shown)) {
      const rest = document.createTextNode(this.text.slice(this.shown.length)); // it never became a whole character
      this.box.insertBefore(rest, this.box.querySelector(".end"));
    }
    if (marks.token_ids.length) this.count(marks.token_ids.length);
    this.update();
  }

  element(id, i, marks) {
    const [text, source, rejected] = [marks.texts[i], marks.sources[i], marks.rejected_texts[i]];
    const marked = source !== null || rejected !== null;
    const element = document.createElement(marked ? "mark" : "span");
    const last = this.finishReason === "stop" && i === marks.token_ids.length - 1 && text === "";
    element.textContent = last ? "end" : text;
    if (last) element.classList.add("end");
    if (marked) {
      element.classList.add(source === null ? "corrected" : source);
      element.dataset.tip = source === null
        ? `${quoted(rejected)} was drafted here; the model chose ${last ? "to end" : quoted(text)}`
        : `drafted by ${SOURCES[source] ?? source}, and accepted`;
      if (element.textContent) {
        element.tabIndex = this.tabStop ? -1 : 0;
        this.tabStop = true;
      }
    }
    if (source !== null) this.acceptedBySource[source] = (this.acceptedBySource[source] ?? 0) + 1;
    this.tokens.push({ id, text, element });
    this.shown += text;
    return element;
  }

  count(tokens) {
    if (this.firstAt) this.passes += 1;
    else [this.firstAt, this.firstTokens] = [performance.now(), tokens];
  }

  update() {
    const decoded = this.tokens.length - this.firstTokens;
    const perPass = this.stats?.tokens_per_pass ?? decoded / this.passes;
    const speed = this.stats?.decode_tokens_per_second ?? (1000 * decoded) / Math.max(performance.now() - this.firstAt, 1);
    const accepted = Object.values(this.acceptedBySource).reduce((sum, n) => sum + n, 0);
    this.figure("tokens", String(this.tokens.length));
    this.figure("perPass", this.passes ? perPass.toFixed(2) : "–");
    this.figure("speed", this.passes ? speed.toFixed(1) : "–");
    this.figure("accepted", this.stats ? `${accepted} of ${this.stats.drafted}` : String(accepted));
  }

  // What the figures do not say: the prompt, where the drafts came from, and why it ended.
  conclude(company) {
    this.box.classList.remove("streaming");
    const said = [];
    if (this.stats) {
      const { prefill_seconds: prefill, prompt_tokens: prompt, reused_tokens: reused } = this.stats;
      const cached = reused ? ` (${reused} from the cache)` : "";
      said.push(`Prompt: ${prompt} tokens${cached} in ${time(prefill)}. Answer: ${time(this.stats.decode_seconds)}.`);
    }
    const sources = Object.entries(this.acceptedBySource).map(([source, n]) => `${n} by ${SOURCES[source] ?? source}`);
    if (sources.length) said.push(`Accepted: ${sources.join(", ")}.`);
    if (this.finishReason === "length") said.push("Ended at the most tokens.");
    if (!this.done) said.push("Not finished.");
    if (company) said.push("Other requests were in work: they shared the machine, and these speeds are not its best.");
    this.figure("note", said.join(" "));
  }
}

// A text between quotes, its control characters and the spaces at its ends made visible.
function quoted(text) {
  const names = { "\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣" };
  const visible = text.replace(/[\u0000-\u001f]|^ +| +$/g, (found) => [...found].map( (c) => names[c] ?? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`).join(""));
  return `“${visible}”`;
}

const time = (seconds) => (seconds < 0.1 ? `${(1000 * seconds).toFixed(1)} ms` : `${seconds.toFixed(2)} s`);

// -- two answers ---------------------------------------------------------------------------------------------------

// What is to be said of the tokens of two answers; `complete` if both came to their end.
function equality(a, b, complete) {
  const [longer, shorter] = [Math.max(a.length, b.length), Math.min(a.length, b.length)];
  let at = 0;
  while (at < shorter && a[at].id === b[at].id) at += 1;
  if (at === longer || (!complete && at === shorter)) {
    return complete
      ? { same: true, says: `identical: ${at} of ${longer} tokens` }
      : { same: true, says: `identical as far as they got: ${at} tokens of each` };
  }
  const [left, right] = [a, b].map((tokens) => (tokens[at] ? quoted(tokens[at].text) : "the end"));
  return { same: false, at, says: `first difference at token ${at + 1} of ${longer}: ${left} with drafting, ${right} without` };
}

function compare(turn, drafted, plain) {
  const block = byId("comparison-template").content.cloneNode(true).firstElementChild;
  const complete = drafted.done && plain.done;
  const { same, at, says } = equality(drafted.tokens, plain.tokens, complete);
  const line = block.querySelector(".equality");
  line.textContent = says;
  line.classList.add(same ? "same" : "different");
  if (!same) for (const answer of [drafted, plain]) answer.tokens[at]?.element.classList.add("differs");
  if (complete) {
    const longest = Math.max(drafted.stats.decode_seconds, plain.stats.decode_seconds);
    for (const answer of [drafted, plain]) block.querySelector("tbody").append(row(answer, longest));
    block.querySelector(".ratio").textContent = ratio(drafted.stats.decode_seconds, plain.stats.decode_seconds);
  } else {
    block.querySelector("table").remove();
    block.querySelector(".note").remove();
    block.querySelector(".ratio").textContent = "Stopped before both had ended: their times cannot be compared.";
  }
  turn.append(block);
  return says;
}

function row({ drafting, stats }, longest) {
  const cells = [time(stats.decode_seconds), stats.decode_tokens_per_second.toFixed(1), String(stats.target_passes)];
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
  const seconds = `${time(drafted)} instead of ${time(plain)}`;
  if (Math.abs(plain / drafted - 1) < 0.02) return `About as fast with drafting as without: ${seconds}.`;
  return drafted > plain ? `Drafting did not pay here: ${times}, ${seconds}.` : `Drafting made it ${times}: ${seconds}.`;
}

// -- a run ---------------------------------------------------------------------------------------------------------

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const say = (text) => { byId("status").textContent = text; };

async function run(event) {
  event.preventDefault();
  if (running || !model) return;
  const chat = chosen("mode") === "chat";
  const prompt = byId("prompt").value;
  const request = {
    path: chat ? "v1/chat/completions" : "v1/completions",
    body: {
      model: model.id,
      ...(chat ? { messages: [...messages, { role: "user", content: prompt }] } : { prompt }),
      temperature: byId("temperature").valueAsNumber,
      max_tokens: byId("max-tokens").valueAsNumber,
      seed: byId("seed").valueAsNumber,
      stream: true,
    },
  };
  const answers = { on: [true], off: [false], both: [true, false] }[chosen("drafting")].map((drafting) => new Answer(drafting));
  // A comparison must draw on nothing earlier: a prompt that was asked before would be drafted from its own answer.
  if (answers.length > 1) request.body.cache_prompt = false;
  const turn = openTurn(prompt, answers, chat);
  showError(null);
  begin();
  let problem = null;
  try {
    for (const answer of answers) await follow(answer, request);
  } catch (error) {
    problem = error;
  }
  end(answers, turn, problem);
  if (!chat) return;
  const answered = answers.find((answer) => answer.tokens.length);
  if (answered) messages = [...request.body.messages, { role: "assistant", content: answered.text }];
  else if (!byId("prompt").value) byId("prompt").value = prompt;
}

async function follow(answer, { path, body }) {
  const { signal } = running;
  const { running: others, waiting } = await (await call("health", { signal })).json();
  say(`Running ${answer.name.toLowerCase()} …`);
  answer.figure("note", "");
  answer.box.classList.add("streaming");
  try {
    const response = await call(path, { body: { ...body, drafting: answer.drafting ? "auto" : "off" }, signal });
    for await (const chunk of chunks(response)) answer.add(chunk);
  } finally {
    answer.conclude(others + waiting > 0);
  }
}

function openTurn(prompt, answers, chat) {
  const turn = byId("turn-template").content.cloneNode(true).firstElementChild;
  turn.querySelector("h2").textContent = chat ? "You" : "Text";
  turn.querySelector(".asked").textContent = prompt;
  turn.querySelector(".panels").append(...answers.map((answer) => answer.panel));
  if (answers.length > 1) answers[1].figure("note", "Waits for the other to finish.");
  if (!chat) byId("turns").replaceChildren();
  else byId("prompt").value = "";
  byId("turns").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  return turn;
}

function begin() {
  running = new AbortController();
  const focused = document.activeElement;
  byId("stop").disabled = false;
  if (focused === byId("run")) byId("stop").focus(); // a disabled button would lose the focus
  byId("run").disabled = byId("clear").disabled = true;
  for (const choice of byId("modes").querySelectorAll("input")) choice.disabled = true;
}

function end(answers, turn, problem) {
  running = null;
  const stopped = problem?.name === "AbortError";
  byId("run").disabled = byId("clear").disabled = false;
  for (const choice of byId("modes").querySelectorAll("input")) choice.disabled = false;
  if (document.activeElement === byId("stop")) byId("run").focus();
  byId("stop").disabled = true;
  const begun = answers.filter((answer) => answer.tokens.length);
  for (const answer of answers) if (!begun.includes(answer)) answer.figure("note", stopped ? "Stopped before its first token." : "Not run.");
  if (problem && !stopped) {
    say("Failed.");
    if (!begun.length) turn.remove();
    showError(problem);
    return;
  }
  const last = begun.at(-1);
  const total = last ? `${last.tokens.length} tokens` : "the first token";
  let says = stopped ? `Stopped ${last ? "after" : "before"} ${total}.` : `Finished: ${total}, ${last.stats.tokens_per_pass.toFixed(2)} per pass.`;
  if (begun.length > 1) says = `${stopped ? "Stopped" : "Finished"}: ${compare(turn, ...begun)}.`;
  say(says);
}

function showError(problem) {
  const box = byId("error");
  box.replaceChildren();
  if (!problem) return;
  const title = document.createElement("strong");
  title.textContent = problem.title ?? "The page failed";
  box.append(title, problem.message);
  box.scrollIntoView({ block: "nearest" });
  if (problem.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
}

// -- marks ---------------------------------------------------------------------------------------------------------

function showTip(mark) {
  const tip = byId("tip");
  hideTip();
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  mark.setAttribute("aria-describedby", "tip");
  const place = [...mark.getClientRects()].find((rect) => rect.width) ?? mark.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = place.top - tip.offsetHeight;
  tip.style.left = `${Math.max(left, 8) + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : place.bottom) + scrollY}px`;
}

function hideTip() {
  byId("tip").hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}

const markOf = (event) => (event.target instanceof Element ? event.target.closest("mark[tabindex]") : null);

// One Tab stop an answer, and the arrow keys within.
function moveMark(event) {
  const mark = markOf(event);
  if (!mark) return;
  const answer = mark.closest(".answer");
  const marks = [...answer.querySelectorAll("mark[tabindex]")];
  const corrected = marks.filter((other) => other.classList.contains("corrected"));
  const here = marks.indexOf(mark);
  const target = {
    ArrowLeft: () => marks[here - 1],
    ArrowRight: () => marks[here + 1],
    ArrowUp: () => corrected.findLast((other) => marks.indexOf(other) < here),
    ArrowDown: () => corrected.find((other) => marks.indexOf(other) > here),
    Home: () => marks[0],
    End: () => marks.at(-1),
  }[event.key];
  if (!target) return;
  event.preventDefault();
  target()?.focus();
}

function takeFocus(event) {
  const mark = markOf(event);
  if (!mark) return;
  mark.closest(".answer").querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  mark.tabIndex = 0;
  showTip(mark);
}

// -- the form ------------------------------------------------------------------------------------------------------

function showMode() {
  const chat = chosen("mode") === "chat";
  byId("prompt-label").textContent = chat ? "Message" : "Text to continue";
  byId("prompt-note").textContent = chat ? "Enter sends, Shift+Enter begins a new line." : "Ctrl+Enter runs.";
  byId("clear").hidden = !chat;
}

function forget() {
  messages = [];
  byId("turns").replaceChildren();
  showError(null);
  say("");
}

async function meet() {
  try {
    model = (await (await call("v1/models")).json()).data[0];
  } catch (problem) {
    byId("model").textContent = "";
    showError(problem);
    return;
  }
  const { chat, drafters } = model.outrider;
  const sources = drafters.map((name) => SOURCES[name] ?? name).join(", ");
  const drafts = drafters.length ? `drafts by ${sources}` : "nothing drafts here";
  const missing = drafters.includes("mtp") || !drafters.length ? "" : " (no MTP drafter is loaded)";
  byId("model").textContent = `${model.id}, context ${model.max_model_len}, ${drafts}${missing}`;
  document.title = `${model.id} – outrider`;
  byId("modes").hidden = !chat;
  byId("base-note").hidden = chat;
  document.querySelector(`input[name="mode"][value="${chat ? "chat" : "completion"}"]`).checked = true;
  for (const item of document.querySelectorAll("#legend [data-source]")) item.hidden = !drafters.includes(item.dataset.source);
  byId("max-tokens").max = model.max_model_len;
  byId("key-form").hidden = true;
  byId("run").disabled = false;
  showError(null);
  showMode();
}

byId("composer").addEventListener("submit", run);
byId("stop").addEventListener("click", () => running?.abort());
byId("clear").addEventListener("click", forget);
byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  byId("key").value = "";
  await meet();
  if (model) byId("prompt").focus();
});
byId("modes").addEventListener("change", () => {
  forget();
  showMode();
});
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  const chat = chosen("mode") === "chat";
  if (event.ctrlKey || event.metaKey || (chat && !event.shiftKey)) {
    event.preventDefault();
    byId("composer").requestSubmit();
  }
});
byId("turns").addEventListener("keydown", moveMark);
byId("turns").addEventListener("focusin", takeFocus);
byId("turns").addEventListener("focusout", hideTip);
document.addEventListener("pointerover", (event) => {
  const mark = markOf(event);
  if (mark) showTip(mark);
  else if (!(event.target instanceof Element && event.target.closest("#tip"))) restTip();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});

// The pointer has left: the tip goes back to the mark that has the focus, if one has.
function restTip() {
  const focused = document.activeElement?.closest("mark[tabindex]");
  if (byId("tip").hidden) return;
  if (focused) showTip(focused);
  else hideTip();
}

meet();

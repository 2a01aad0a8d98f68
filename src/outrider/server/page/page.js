// The page of `outrider serve`: starts it, and connects its parts.

import { Answer } from "./answer.js";
import { call } from "./api.js";
import { compare } from "./comparison.js";
import { Conversation, answerNode, shownAnswer, toolNode, userNode } from "./conversation.js";
import { exportJson, exportMarkdown } from "./export.js";
import { Files } from "./files.js";
import { arms, generate, requestBody } from "./generation.js";
import { Log } from "./log.js";
import { sourceName } from "./marks.js";
import { sendingNote, sends } from "./sending_key.js";
import { loadSettings, restoreDefaults, setting, wrongField } from "./settings.js";
import { forgetKey, keepKey, keepModel, keepTab, readKey, readModel, readTab } from "./storage.js";
import { listenForTips } from "./tips.js";

const byId = (id) => document.getElementById(id);
const prompt = byId("prompt");

let model = null; // the server's entry in /v1/models
let running = null; // the AbortController of what runs
let conversations = { chat: new Conversation(), completion: new Conversation() };

const chatting = () => Boolean(model?.outrider.chat) && setting("mode") === "chat";
const conversation = () => conversations[chatting() ? "chat" : "completion"];
const system = () => setting("system").trim();
const say = (text) => {
  byId("status").textContent = text;
};

// -- what is shown -------------------------------------------------------------------------------------------------

function showLog() {
  const { path } = conversation();
  const { activeElement: focused } = document;
  const focusInLog = byId("log").contains(focused);
  log.show(conversation(), { chat: chatting(), model: model.id });
  byId("empty").hidden = path.length > 0;
  const busy = running !== null;
  log.rest(busy);
  for (const id of ["clear", "export"]) byId(id).disabled = busy || !path.length;
  for (const id of ["mode", "models"]) byId(id).disabled = busy;
  byId("run").disabled = false;
  byId("run").hidden = busy;
  byId("stop").hidden = !busy;
  // A button that is hidden or disabled loses the focus: it stays with what starts and stops.
  if (busy && (focused === byId("run") || focusInLog)) byId("stop").focus();
  if (!busy && focused === byId("stop")) byId("run").focus();
}

function showMode() {
  const chat = chatting();
  byId("prompt-label").textContent = chat ? "Message" : "Text to continue";
  prompt.placeholder = chat ? "Message" : "Once upon a time";
  byId("prompt-note").textContent = sendingNote(chat);
  byId("run").textContent = chat ? "Send" : "Complete";
  byId("thinking-label").hidden = !chat;
  byId("both-note").hidden = setting("drafting") !== "both";
  if (model) {
    byId("empty-title").textContent = chat ? `Chat with ${model.id}` : `Let ${model.id} continue a text`;
    byId("base-note").hidden = model.outrider.chat;
    byId("chat-note").hidden = !chat;
    showLog();
  }
}

function showError(problem, again = null) {
  const box = byId("error");
  box.replaceChildren();
  if (!problem) return;
  const title = document.createElement("strong");
  title.textContent = problem.title ?? "The page failed";
  box.append(title, problem.message);
  if (again) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    box.append(button);
  }
  if (problem.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
}

// Keeps the conversations and what is being written; whether there was room.
function keep() {
  const { chat, completion } = conversations;
  return keepTab({ chat: chat.root, completion: completion.root, written: { text: prompt.value, files: files.all } });
}

function restore() {
  const kept = readTab();
  if (!kept) return;
  conversations = { chat: Conversation.restore(kept.chat), completion: Conversation.restore(kept.completion) };
  write(kept.written.text, kept.written.files);
  takeBack(conversation(), conversation().last); // the page was left before its answer began
}

function write(text, attached) {
  if (prompt.value || files.all.length) return;
  prompt.value = text;
  files.put(attached);
}

// -- a run ---------------------------------------------------------------------------------------------------------

// Whether a request can be made now; says which setting is wrong.
function ready() {
  if (running || !model) return false;
  const wrong = wrongField();
  if (!wrong) return true;
  openSettings();
  wrong.reportValidity();
  return false;
}

async function answer(parent) {
  const talk = conversation();
  const text = chatting() ? { messages: talk.messages(parent, system()) } : { prompt: parent.text };
  const body = requestBody(model.id, text);
  const node = answerNode(
    arms().map((drafting) => new Answer(drafting)),
    body.seed,
  );
  talk.add(parent, node);
  running = new AbortController();
  showError(null);
  showLog();
  log.toEnd();
  const loading = model.outrider.state === "ready" ? "" : `Loading ${model.id}, if it is not loaded. `;
  const started = ({ name }) =>
    say(loading + (node.answers.length > 1 ? `Running ${name.toLowerCase()} …` : "Answering …"));
  let problem = null;
  try {
    await generate(log.viewOf(node).panels, body, running.signal, started);
  } catch (error) {
    problem = error;
  }
  running = null;
  if (loading && !problem) await meet(); // now its drafters are known
  conclude(talk, parent, node, problem);
}

function conclude(talk, parent, node, problem) {
  const stopped = problem?.name === "AbortError";
  const begun = node.answers.filter(({ tokens }) => tokens.length);
  if (begun.length) {
    for (const panel of log.viewOf(node).panels) panel.note(panel.summary());
    log.viewOf(node).conclude();
  } else {
    talk.remove(node);
    takeBack(talk, parent);
  }
  say(problem && !stopped ? "Failed." : outcome(begun, stopped));
  if (problem && !stopped) showError(problem);
  showLog();
  log.follow();
  if (!keep()) say("Too long to be kept: export it before this tab is closed or loaded again.");
}

function outcome(begun, stopped) {
  const verb = stopped ? "Stopped" : "Finished";
  if (!begun.length) return `${verb} before the first token.`;
  if (begun.length > 1) return `${verb}: ${compare(...begun).text}.`;
  const [{ tokens, stats }] = begun;
  return stats
    ? `${verb}: ${tokens.length} tokens, ${stats.tokens_per_pass.toFixed(2)} per pass.`
    : `${verb} after ${tokens.length} tokens.`;
}

// What has no answer is no turn: a message goes back to where it was written.
function takeBack(talk, node) {
  if (!["user", "tool"].includes(node.role) || node.options.length) return;
  talk.remove(node);
  if (node.role === "user") write(node.text, node.files);
}

function send(event) {
  event.preventDefault();
  const empty = !prompt.value.trim() && !files.all.length;
  if (!ready() || (chatting() && empty)) return;
  const talk = conversation();
  const node = userNode(prompt.value, files.take());
  prompt.value = "";
  talk.add(chatting() ? talk.last : talk.root, node); // a further text is one more version of the former
  answer(node);
}

// What the buttons of a turn do.
const actions = {
  regenerate(node) {
    if (ready()) answer(conversation().parentOf(node));
  },
  edit(node, text) {
    if (!ready()) return;
    const edited = userNode(text, node.files);
    conversation().add(conversation().parentOf(node), edited);
    answer(edited);
  },
  answerCalls(node, results) {
    if (!ready()) return;
    const given = toolNode(results);
    conversation().add(node, given);
    answer(given);
  },
  choose(node, step) {
    if (running) return;
    const parent = conversation().parentOf(node);
    parent.chosen += step;
    showLog();
    log.viewOf(parent.options[parent.chosen]).focusVersions(step);
    keep();
  },
  goOn(node) {
    if (!ready()) return;
    const longer = userNode(conversation().parentOf(node).text + shownAnswer(node).text("content"));
    conversation().add(conversation().root, longer);
    answer(longer);
  },
};

const log = new Log(byId("log"), actions);

// -- the start -----------------------------------------------------------------------------------------------------

async function meet() {
  const first = model === null;
  try {
    const { data } = await (await call("v1/models")).json();
    model = data.find(({ id }) => id === readModel()) ?? data[0];
    showModels(data);
  } catch (problem) {
    byId("model").textContent = "";
    showError(problem, problem.status === 401 ? null : meet);
    return;
  }
  const { chat, drafters, state } = model.outrider;
  const drafts = drafters.length ? `drafts by ${drafters.map(sourceName).join(", ")}` : "nothing drafts here";
  const missing = drafters.includes("mtp") || !drafters.length ? "" : " (no MTP drafter is loaded)";
  const what = state === "ready" ? drafts + missing : "not loaded: the first request loads it";
  byId("model").textContent = `${model.id}, context ${model.max_model_len}, ${what}`;
  document.title = `${model.id} – outrider`;
  byId("mode").hidden = !chat;
  const samples = document.querySelectorAll("#legend [data-source]");
  for (const sample of samples) sample.hidden = !drafters.includes(sample.dataset.source);
  for (const id of ["chat-max-tokens", "completion-max-tokens"]) byId(id).max = model.max_model_len;
  byId("key-form").hidden = true;
  byId("forget-key").hidden = !readKey();
  showError(null);
  if (first) restore();
  showMode();
}

function showModels(models) {
  const options = models.map(({ id }) => new Option(id, id, id === model.id, id === model.id));
  byId("models").replaceChildren(...options);
  byId("models").hidden = models.length < 2;
}

function openSettings() {
  byId("forget-key").hidden = !readKey();
  byId("settings").showModal();
}

const files = new Files({
  list: byId("files"),
  input: byId("file-input"),
  field: prompt,
  refuse: ({ message }) => showError({ title: "Not attached", message }),
  // A completion continues the file's text.
  insert({ text }) {
    if (chatting()) return false;
    prompt.value += text;
    return true;
  },
});

loadSettings();
listenForTips(byId("log"));
byId("composer").addEventListener("submit", send);
byId("stop").addEventListener("click", () => running?.abort());
byId("attach").addEventListener("click", () => byId("file-input").click());
byId("open-settings").addEventListener("click", openSettings);
byId("defaults").addEventListener("click", restoreDefaults);
byId("mode").addEventListener("change", showMode);
byId("models").addEventListener("change", async ({ target }) => {
  keepModel(target.value);
  await meet();
});
byId("drafting").addEventListener("change", showMode);
byId("clear").addEventListener("click", () => {
  if (!confirm("Discard this conversation? Export keeps it as a file.")) return;
  conversation().clear();
  keep();
  showError(null);
  say("");
  showLog();
  prompt.focus();
});
for (const [id, write] of [
  ["export-markdown", exportMarkdown],
  ["export-json", exportJson],
]) {
  byId(id).addEventListener("click", () => {
    write(conversation(), model.id, chatting() ? system() : "");
    byId("export-menu").hidePopover();
  });
}
byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepKey(byId("key").value.trim(), byId("remember-key").checked);
  byId("key").value = "";
  await meet();
  if (model) prompt.focus();
});
byId("forget-key").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
prompt.addEventListener("keydown", (event) => {
  if (!sends(event, chatting())) return;
  event.preventDefault();
  if (!running) byId("composer").requestSubmit();
});
addEventListener("pagehide", keep);

meet();

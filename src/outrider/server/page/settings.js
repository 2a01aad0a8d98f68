// The settings: fields of the page that are kept in this browser, and what they make of a request.

import { keepSettings, readSettings } from "./storage.js";

const fields = [...document.querySelectorAll("[data-setting]")];
const field = (name) => fields.find((element) => element.dataset.setting === name);
const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"];

const valueOf = (element) => (element.type === "checkbox" ? element.checked : element.value);

function setValue(element, value) {
  if (element.type === "checkbox") element.checked = value;
  else element.value = value;
}

const defaults = Object.fromEntries(fields.map((element) => [element.dataset.setting, valueOf(element)]));

export function loadSettings() {
  const kept = readSettings();
  for (const element of fields) setValue(element, kept[element.dataset.setting] ?? defaults[element.dataset.setting]);
  for (const element of fields) element.addEventListener("change", keep);
}

function keep() {
  checkTools();
  keepSettings(Object.fromEntries(fields.map((element) => [element.dataset.setting, valueOf(element)])));
}

export function restoreDefaults() {
  for (const element of fields) if (element.closest("dialog")) setValue(element, defaults[element.dataset.setting]);
  keep();
}

export const setting = (name) => valueOf(field(name));

// The first field whose value cannot be sent, if any.
export function wrongField() {
  checkTools();
  return fields.find((element) => !element.checkValidity());
}

function checkTools() {
  let problem = "";
  try {
    if (!Array.isArray(tools() ?? []))
      problem = 'The tools are not a list: write [{"type": "function", "function": …}].';
  } catch (error) {
    problem = `The tools are not JSON: ${error.message}.`;
  }
  field("tools").setCustomValidity(problem);
}

function tools() {
  const text = setting("tools").trim();
  return text ? JSON.parse(text) : undefined;
}

// The fields of a request. What is left empty is left to the server; a seed is drawn here, so that it can be shown.
export function requestFields(chat) {
  const numbers = Object.fromEntries(
    SAMPLING.filter((name) => setting(name) !== "").map((name) => [name, Number(setting(name))]),
  );
  const limit = setting(chat ? "chat_max_tokens" : "completion_max_tokens");
  const stop = setting("stop")
    .split("\n")
    .filter((line) => line);
  return {
    ...numbers,
    ...(limit && { max_tokens: Number(limit) }),
    ...(stop.length && { stop }),
    ...(chat && setting("thinking") && { chat_template_kwargs: { enable_thinking: true } }),
    ...(chat && tools()?.length && { tools: tools() }),
    seed: setting("seed") === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(setting("seed")),
  };
}

// What the browser keeps: settings in localStorage, the conversation in sessionStorage, which ends with the tab, and
// the key in either.

const KEY = "outrider.key";
const SETTINGS = "outrider.settings";
const TAB = "outrider.tab";
const MODEL = "outrider.model";

// A browser may refuse storage; then everything lives until the page is closed.
const inMemory = new Map();
const memory = {
  getItem: (name) => inMemory.get(name) ?? null,
  setItem: (name, value) => inMemory.set(name, value),
  removeItem: (name) => inMemory.delete(name),
};

function storage(name) {
  try {
    return window[name] ?? memory;
  } catch {
    return memory;
  }
}

const tab = storage("sessionStorage");
const browser = storage("localStorage");

function read(from, name) {
  try {
    return JSON.parse(from.getItem(name));
  } catch {
    return null;
  }
}

export const readKey = () => tab.getItem(KEY) ?? browser.getItem(KEY) ?? "";

export function keepKey(key, remember) {
  forgetKey();
  (remember ? browser : tab).setItem(KEY, key);
}

export function forgetKey() {
  for (const from of [tab, browser]) from.removeItem(KEY);
}

export const readSettings = () => read(browser, SETTINGS) ?? {};
export const keepSettings = (settings) => browser.setItem(SETTINGS, JSON.stringify(settings));

// The model that was chosen in this tab.
export const readModel = () => tab.getItem(MODEL) ?? "";
export const keepModel = (id) => tab.setItem(MODEL, id);

export const readTab = () => read(tab, TAB);

// Whether there was room for it.
export function keepTab(content) {
  try {
    tab.setItem(TAB, JSON.stringify(content));
    return true;
  } catch {
    tab.removeItem(TAB);
    return false;
  }
}

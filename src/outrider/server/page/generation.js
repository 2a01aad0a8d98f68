// One request of the page: its answers, streamed one after the other.

import { call, chunks } from "./api.js";
import { requestFields, setting } from "./settings.js";

const ARMS = { on: [true], off: [false], both: [true, false] };

// For each answer of the next request: whether it is drafted.
export const arms = () => ARMS[setting("drafting")];

// The body of a request, without `drafting`. messages: of a chat; prompt: of a completion.
export function requestBody(model, { messages, prompt }) {
  const chat = messages !== undefined;
  const body = { model, ...(chat ? { messages } : { prompt }), ...requestFields(chat), stream: true };
  // A comparison must draw on nothing earlier: a prompt that was asked before would be drafted from its own answer.
  return arms().length > 1 ? { ...body, cache_prompt: false } : body;
}

// Streams each answer into its panel. started: is told of each as it starts.
export async function generate(panels, body, signal, started) {
  const path = body.messages ? "v1/chat/completions" : "v1/completions";
  for (const panel of panels.slice(1)) panel.note("Waits for the other to finish.");
  for (const panel of panels) {
    const { running, waiting } = await (await call("health", { signal })).json();
    started(panel);
    panel.start();
    try {
      const drafting = panel.answer.drafting ? "auto" : "off";
      const response = await call(path, { body: { ...body, drafting }, signal });
      for await (const chunk of chunks(response)) panel.add(chunk);
    } finally {
      panel.conclude(running + waiting > 0);
    }
  }
}

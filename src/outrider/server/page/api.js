// Requests to this server, and its streams.

import { readKey } from "./storage.js";

export class ApiError extends Error {
  constructor(title, message, status = 0) {
    super(message);
    this.title = title;
    this.status = status;
  }
}

export async function call(path, { body, signal } = {}) {
  const key = readKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const post = body && { method: "POST", body: JSON.stringify(body) };
  if (post) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { headers, signal, cache: "no-store", ...post });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("The server cannot be reached", `${problem.message}. Check that it still runs, then try again.`);
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
    // The body is not this server's: a proxy may have answered.
  }
  const wait = response.headers.get("retry-after");
  const advice = wait ? ` (try again in ${wait} s)` : "";
  const title = `${response.status} ${error.code ?? error.type ?? response.statusText}`;
  return new ApiError(title, (error.message ?? text) + advice, response.status);
}

// The chunks of a stream of server-sent events, up to [DONE]. Comment lines, which keep a connection open, are skipped.
export async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(interrupted);
    if (done) throw new ApiError("The stream ended early", "The server closed the connection before the answer's end.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5))
        .join("\n");
      if (!data) continue;
      if (data.trim() === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.code ?? chunk.error.type, chunk.error.message);
      yield chunk;
    }
  }
}

function interrupted(problem) {
  if (problem.name === "AbortError") throw problem;
  throw new ApiError("The stream was interrupted", `${problem.message}. Check that the server still runs.`);
}

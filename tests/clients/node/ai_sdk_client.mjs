// Vercel's AI SDK: generateText, streamText, tools and objects, over chat completions, responses and messages.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";

const url = process.argv[2];
const baseURL = `${url}/v1`;
const name = (await (await fetch(`${baseURL}/models`)).json()).data[0].id;
const object = (properties) =>
  jsonSchema({ type: "object", properties, required: Object.keys(properties), additionalProperties: false });
const models = {
  compatible: createOpenAICompatible({ name: "outrider", baseURL, supportsStructuredOutputs: true })(name),
  responses: createOpenAI({ baseURL, apiKey: "none" })(name),
  messages: createAnthropic({ baseURL, apiKey: "none" })(name),
};
const tools = {
  get_weather: tool({
    description: "Reports the weather",
    inputSchema: object({ city: { type: "string" } }),
    execute: async ({ city }) => `rain in ${city}`,
  }),
};
for (const [kind, model] of Object.entries(models)) {
  const options = { model, maxRetries: 0, maxOutputTokens: 256 };
  const { text } = await generateText({ ...options, prompt: "Hello" });
  assert.equal(text, "Hello from the stand-in.");
  let streamed = "";
  const stream = streamText({ ...options, prompt: "Hello", onError: ({ error }) => console.error(error) });
  for await (const piece of stream.textStream) streamed += piece;
  assert.equal(streamed, text);
  const prompt = "What is the weather in Oslo?";
  const told = await generateText({ ...options, prompt, tools, stopWhen: stepCountIs(3) });
  assert.equal(told.text, "The tool says: rain in Oslo");
  const output = Output.object({ schema: object({ name: { type: "string" }, age: { type: "integer" } }) });
  const found = await generateText({ ...options, prompt: "Extract: Ada is 36", output });
  assert.deepEqual(found.output, { name: "Ada", age: 36 });
  console.log(kind);
}

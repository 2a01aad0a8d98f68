// The official OpenAI client for Node: chat, streams, tools, responses.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const whole = (await client.chat.completions.create({ model, messages })).choices[0].message.content;
let text = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
  text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, whole);
assert.equal(whole, "Hello from the stand-in.");
console.log("chat");

const tools = [
  {
    type: "function",
    function: { name: "get_weather", parameters, parse: JSON.parse, function: ({ city }) => `rain in ${city}` },
  },
];
const question = [{ role: "user", content: "What is the weather in Oslo?" }];
const runner = client.chat.completions.runTools({ model, messages: question, tools });
assert.equal(await runner.finalContent(), "The tool says: rain in Oslo");
console.log("runTools");

const response = await client.responses.create({ model, input: "Hello" });
assert.equal(response.output_text, whole);
const stream = client.responses.stream({ model, input: "Hello", previous_response_id: response.id });
let deltas = "";
for await (const event of stream) if (event.type === "response.output_text.delta") deltas += event.delta;
assert.equal(deltas, whole);
assert.equal((await stream.finalResponse()).output_text, whole);
console.log("responses");

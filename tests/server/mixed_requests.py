"""Random requests to a server: any mixture that it may meet, the same for the same seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from lossless.fuzz import random_params, random_prompt
from server.apis import CHAT, COMPLETION, MESSAGES, RESPONSES
from tiny_checkpoints import WINDOW

TOKENS = 500
"""Token ids of prompts and biases lie below; every model has so many."""
_LONGEST_PAUSE = 0.02
LEAVINGS = ("with half a body", "at once", "soon", "after some chunks", "with a reset", "half-closed")

_TEXTS = (
    "ab cab dez ",
    "Umlaute: äöü. ",
    "🙂🎉 emoji 👩‍👩‍👧 ",
    "日本語の文 ",
    "half a pair: \ud83d ",
    '{"a": [1, 2]} ',
    "z" * 30,
)
_SCHEMAS: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    {"enum": ["ab", "abc", 12, None]},
    {"type": "string", "maxLength": 6},
)
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"a": {"type": kind}}, "required": ["a"]},
        },
    }
    for name, kind in (("look_up", "string"), ("add", "integer"))
]
_ANTHROPIC_TOOLS = [
    {"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in _TOOLS
]
_HELLO = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
_HALF_SCHEMA = {"schema": {"enum": ["\ud800"]}}
# What is wrong, and what the server has to answer.
_REFUSED: tuple[tuple[str, dict[str, Any] | bytes, int], ...] = (
    (COMPLETION, {}, 400),
    (COMPLETION, {"prompt": "a", "max_tokens": -2}, 400),
    (COMPLETION, {"prompt": "a", "temperature": "warm"}, 400),
    (COMPLETION, {"prompt": "a", "top_p": float("nan")}, 400),
    (COMPLETION, {"prompt": "a", "n": 129}, 400),
    (COMPLETION, {"prompt": [1, 2, 10**12]}, 400),
    (COMPLETION, {"prompt": "a", "logit_bias": {"99999999": 1}}, 400),
    (COMPLETION, {"prompt": "a", "model": "anöther\n"}, 404),
    (COMPLETION, {"prompt": "a", "model": "\ud800"}, 404),
    (COMPLETION, {"prompt": "a", "tools": _TOOLS}, 400),
    (COMPLETION, {"prompt": "a", "stop": ["b"] * 17}, 400),
    (COMPLETION, {"prompt": "a", "regex": "("}, 400),
    (COMPLETION, {"prompt": "a", "regex": "a\ud800"}, 400),
    (COMPLETION, {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": _HALF_SCHEMA}}, 400),
    (COMPLETION, {"prompt": "a", "grammar": "start: nothing"}, 400),
    (COMPLETION, {"prompt": "a", "grammar": 'start: "a"', "regex": "a"}, 400),
    (COMPLETION, {"prompt": "ab " * 100_000}, 400),
    (COMPLETION, {"prompt": "a", "seed": 2**64}, 400),
    (COMPLETION, {"prompt": "a", "n": 8, "logit_bias": {str(token): 1 for token in range(50_000)}}, 400),
    (COMPLETION, {"prompt": ["a"] * 200_000}, 400),
    (COMPLETION, {"prompt": "a", "cache_salt": "x" * 300}, 400),
    (COMPLETION, b"", 400),
    (COMPLETION, b"[", 400),
    (COMPLETION, b"\xff\xfe\x00", 400),
    (COMPLETION, b"[" * 200_000, 400),
    (COMPLETION, b'{"prompt": "a", "seed": ' + b"1" * 5_000 + b"}", 400),
    (COMPLETION, b"x" * (9 << 20), 413),
    (CHAT, {"messages": []}, 400),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400),
    (CHAT, {"messages": [{"role": "nobody", "content": "a"}]}, 400),
    (CHAT, {"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"}, 400),
    (COMPLETION, {"prompt": ["a", 5]}, 400),
    (COMPLETION, {"prompt": ["a"] * 65, "n": 2}, 400),
    (COMPLETION, {"prompt": "a", "suffix": "b"}, 400),
    (COMPLETION, {"prompt": ["a", "ab " * 9_000], "echo": True, "logprobs": 1}, 400),
    (CHAT, _HELLO | {"tools": _TOOLS * 2}, 400),
    (CHAT, _HELLO | {"continue_final_message": True}, 400),
    (MESSAGES, {}, 400),
    (MESSAGES, {"messages": _HELLO["messages"]}, 400),
    (MESSAGES, _HELLO | {"max_tokens": 0}, 400),
    (MESSAGES, _HELLO | {"seed": 2**64}, 400),
    (MESSAGES, _HELLO | {"drafting": "often"}, 400),
    (MESSAGES, _HELLO | {"stop_sequences": ["b"] * 17}, 400),
    (MESSAGES, _HELLO | {"tool_choice": {"type": "any"}}, 400),
    (MESSAGES, _HELLO | {"model": "\ud800"}, 404),
    (MESSAGES, _HELLO | {"messages": [{"role": "user", "content": "ab " * 100_000}]}, 400),
    (MESSAGES, _HELLO | {"output_config": {"format": {"type": "json_schema", "schema": _HALF_SCHEMA["schema"]}}}, 400),
    (RESPONSES, {}, 400),
    (RESPONSES, {"input": "a", "max_output_tokens": 0}, 400),
    (RESPONSES, {"input": "a", "model": "\ud800"}, 404),
    (RESPONSES, {"input": "a", "previous_response_id": "resp_\ud800"}, 404),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1_0"}]}, 404),
    (RESPONSES, {"input": [{"role": "nobody", "content": "a"}]}, 400),
    (RESPONSES, {"input": "a", "background": True, "store": False}, 400),
    (RESPONSES, {"input": "a", "tool_choice": "required"}, 400),
    (RESPONSES, {"input": "a", "n": 2}, 400),
    (RESPONSES, {"input": "ab " * 100_000}, 400),
    (RESPONSES, {"input": "a", "text": {"format": {"type": "json_schema"}}}, 400),
    (RESPONSES, b"[", 400),
    (MESSAGES, b"[", 400),
    (MESSAGES, b"x" * (9 << 20), 413),
    ("/v1/nothing", {}, 404),
)


@dataclass(frozen=True)
class Case:
    """A request.

    status: what it has to be answered with.
    leaves: how the client leaves before the end, one of LEAVINGS; None reads the whole answer.
    patience: how far it gets before: a part of a second, and of some chunks.
    pause: seconds that it takes to read a line of a stream.
    """

    path: str
    body: dict[str, Any] | bytes
    status: int = 200
    leaves: str | None = None
    patience: float = 0.0
    pause: float = 0.0

    @property
    def content(self) -> bytes:
        """The body as it is sent; surrogates are escaped, so that any text can be."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def streams(self) -> bool:
        """Whether the answer comes in parts."""
        return isinstance(self.body, dict) and self.body.get("stream") is True

    def alone(self) -> Case:
        """The same without drafting and whole; it must have the same answer."""
        assert isinstance(self.body, dict)
        body = {name: value for name, value in self.body.items() if name not in ("stream", "stream_options")}
        return Case(self.path, body | {"drafting": "off"}, self.status)

    def __str__(self) -> str:
        body = self.content.decode("utf-8", "replace")
        how = "" if self.leaves is None else f", and the client leaves {self.leaves} ({self.patience:.2f})"
        return f"POST {self.path}{how}\n{body if len(body) < 20_000 else f'{len(body)} bytes'}"


class Mixture:
    """Draws requests.

    Args:
        context: of the model, in tokens.
        chat, tools: what it can.
        leaving: the share of clients that leave.
    """

    def __init__(self, rng: random.Random, *, context: int, chat: bool, tools: bool, leaving: float) -> None:
        self._rng, self._context, self._leaving = rng, context, leaving
        self._chat, self._tools = chat, tools
        # What prompts begin with: longer than the sliding window, so that an edit may lie before or within it.
        longest = min(context // 3, 8 * WINDOW)
        self._roots = [random_prompt(rng, TOKENS, WINDOW, longest) * 4 for _ in range(3)]
        self._roots = [root[:longest] for root in self._roots]
        self._talks = ["".join(rng.choices(_TEXTS, k=rng.randint(1, 3))) for _ in range(3)]

    def case(self) -> Case:
        """The next request."""
        rng = self._rng
        if rng.random() < 0.04:
            path, refused, status = rng.choice(_REFUSED)
            if self._chat or path in (COMPLETION, "/v1/nothing"):
                return Case(path, refused, status)
        forms = {COMPLETION: self._completion, CHAT: self._turns, MESSAGES: self._message, RESPONSES: self._response}
        path = rng.choices(list(forms), [4, 3, 2, 2])[0] if self._chat else COMPLETION
        body = forms[path](self._params())
        leaves = rng.choice(LEAVINGS) if rng.random() < self._leaving else None
        if leaves and path == RESPONSES and rng.random() < 0.3:
            body |= {"background": True, "store": True}
        if leaves in ("after some chunks", "with a reset"):
            body["stream"] = True
        pause = rng.random() * _LONGEST_PAUSE if leaves is None and rng.random() < 0.05 else 0.0
        return Case(path, body, leaves=leaves, patience=rng.random() ** 2, pause=pause)

    def burst(self, count: int) -> list[Case]:
        """Requests to be sent all at once, whose answers are too long for all to find a place. Nobody leaves."""
        prompt, params = self._prompt(), self._params()
        for ending in ("stop", "regex", "grammar", "response_format"):
            params.pop(ending, None)
        params |= {"prompt": prompt, "n": 1, "max_tokens": self._context // 3, "ignore_eos": True}
        return [Case(COMPLETION, params | {"seed": seed}) for seed in range(count)]

    def _params(self) -> dict[str, Any]:
        rng = self._rng
        given = random_params(rng, TOKENS, rng.choice([4, 12, 40, 40, self._context // 3]))
        body: dict[str, Any] = {"temperature": given.pop("temperature", 0.0)}
        if "ignore_end" in given:
            body["ignore_eos"] = given.pop("ignore_end")
        if "logit_bias" in given:  # the API has no infinity
            body["logit_bias"] = {str(token): max(bias, -100.0) for token, bias in given.pop("logit_bias").items()}
        if "stop" in given:
            body["stop"] = list(given.pop("stop"))
        grammar = given.pop("grammar", None)
        if grammar is not None:
            body["regex" if grammar.kind == "regex" else "grammar"] = grammar.text
        elif rng.random() < 0.1:
            schema = {"name": "form", "schema": rng.choice(_SCHEMAS)}
            body["response_format"] = rng.choice(
                [{"type": "json_schema", "json_schema": schema}, {"type": "json_object"}, {"type": "text"}]
            )
        body["drafting"] = rng.choice(["auto", "auto", "off", rng.randint(0, 20)])
        if rng.random() < 0.15:
            body["n"] = rng.randint(2, 4)
        if rng.random() < 0.5:
            body["stream"] = True
            if rng.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        return body | given

    def _prompt(self) -> str | list[int]:
        rng = self._rng
        if rng.random() < 0.3:
            return rng.choice(self._talks) + "".join(rng.choices(_TEXTS, k=rng.randint(0, 2)))
        tail = random_prompt(rng, TOKENS, WINDOW, self._context // 4)
        if rng.random() < 0.5:
            return tail
        root = list(rng.choice(self._roots))
        if rng.random() < 0.5:  # edited: from there on nothing that is kept may be seen
            root[rng.randrange(len(root))] = rng.randrange(3, TOKENS)
        return root[: rng.randint(1, len(root))] + tail[: rng.randint(0, len(tail))]

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request for continuations; `body` has its sampling fields."""
        rng = self._rng
        body["prompt"] = self._prompt()
        if rng.random() < 0.1:
            texts = rng.random() < 0.5
            prompts = [self._prompt() for _ in range(rng.randint(1, 3))]
            body["prompt"] = [prompt for prompt in prompts if isinstance(prompt, str) is texts] or [body["prompt"]]
        if rng.random() < 0.1:
            body |= {"echo": True} | rng.choice([{}, {"logprobs": rng.choice([0, 1, 5])}, {"max_tokens": 0}])
        if rng.random() < 0.05:
            body["prompt_logprobs"] = rng.choice([0, 2])
        if rng.random() < 0.1:
            body |= rng.choice([{"parse_special": True}, {"add_special_tokens": False}, {"suffix": ""}])
        return body

    def _messages(self) -> list[dict[str, Any]]:
        rng = self._rng
        messages = [{"role": "user", "content": rng.choice(self._talks)}]
        if rng.random() < 0.4:
            answer = {"role": "assistant", "content": rng.choice(["ab", "Ja 🙂", ""])}
            messages += [answer, {"role": "user", "content": rng.choice(_TEXTS)}]
        return messages

    def _turns(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request for a turn of OpenAI's chat; `body` has sampling fields, some of which chat says differently."""
        rng = self._rng
        body["messages"] = self._messages()
        logprobs = body.pop("logprobs", None)
        if logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": logprobs}
        body["max_completion_tokens"] = body.pop("max_tokens")
        formed = any(name in body for name in ("regex", "grammar", "response_format"))
        if self._tools and not formed and rng.random() < 0.3:
            choice = rng.choice(["auto", "none", "required", {"type": "function", "function": {"name": "add"}}])
            body |= {"tools": _TOOLS, "tool_choice": choice, "parallel_tool_calls": rng.random() < 0.5}
        if self._tools and rng.random() < 0.2:
            body["chat_template_kwargs"] = {"enable_thinking": rng.choice([True, "true", "false"])}
        if rng.random() < 0.2:
            body |= rng.choice([{"thinking_budget": rng.choice([0, 1, 9])}, {"reasoning_effort": "high"}])
        if rng.random() < 0.2:
            called = {"name": "add", "arguments": rng.choice(['{"a": 1}', '{"a', "[1]", None])}
            odd = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": called}]}]
            odd += [{"role": "tool", "tool_call_id": "1", "content": "4"}, {"role": "developer", "content": "ab"}]
            body["messages"] = rng.sample([*body["messages"], *odd], len(body["messages"]) + 2)
        elif rng.random() < 0.1:
            body["messages"].append({"role": "assistant", "content": "ab"})
            body |= rng.choice([{"continue_final_message": True}, {"add_generation_prompt": False}])
        return body

    def _message(self, given: dict[str, Any]) -> dict[str, Any]:
        """A request for a turn of Anthropic's; it has few of the sampling fields, and its own words for others."""
        rng = self._rng
        kept = (
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "seed",
            "cache_salt",
            "cache_prompt",
            "drafting",
            "stream",
        )
        body: dict[str, Any] = {name: given[name] for name in kept if name in given}
        body["messages"] = self._messages()
        if "stop" in given:
            body["stop_sequences"] = given["stop"]
        if rng.random() < 0.2:
            body["system"] = rng.choice(
                ["ab", [{"type": "text", "text": "dez", "cache_control": {"type": "ephemeral"}}]]
            )
        chance = rng.random()
        if self._tools and chance < 0.3:
            choice: dict[str, Any] = rng.choice([{"type": kind} for kind in ("auto", "none", "any")])
            choice = rng.choice([choice, {"type": "tool", "name": "add"}])
            choice |= {"disable_parallel_tool_use": rng.random() < 0.5}
            body |= {"tools": _ANTHROPIC_TOOLS, "tool_choice": choice}
        elif chance < 0.45:
            body["output_config"] = {"format": {"type": "json_schema", "schema": rng.choice(_SCHEMAS)}}
        if self._tools and rng.random() < 0.3:
            short = {"type": "enabled", "budget_tokens": rng.choice([1, 9]), "display": "omitted"}
            body["thinking"] = rng.choice([{"type": "adaptive"}, {"type": "disabled"}, short])
        if rng.random() < 0.2:
            use = {"type": "tool_use", "id": "1", "name": "add", "input": rng.choice([{"a": 1}, {}])}
            result = {"type": "tool_result", "tool_use_id": "1", "content": "4", "is_error": rng.random() < 0.5}
            thought = {"type": "thinking", "thinking": "abc", "signature": ""}
            body["messages"] += [
                {"role": "assistant", "content": [thought, use]},
                {"role": "user", "content": [result]},
            ]
        return body

    def _response(self, given: dict[str, Any]) -> dict[str, Any]:
        """A request for a response; the sampling fields are those of chat."""
        rng = self._rng
        body = {name: value for name, value in given.items() if name not in ("n", "stream_options")}
        body["max_output_tokens"] = body.pop("max_tokens")
        body["store"] = rng.random() < 0.3
        logprobs = body.pop("logprobs", None)
        if logprobs is not None:
            body |= {"top_logprobs": logprobs, "include": ["message.output_text.logprobs"]}
        messages = self._messages()
        body["input"] = messages[0]["content"] if rng.random() < 0.5 else messages
        if rng.random() < 0.2:
            body["instructions"] = rng.choice(_TEXTS)
        formed = any(name in body for name in ("regex", "grammar", "response_format"))
        chance = rng.random()
        if self._tools and not formed and chance < 0.3:
            tools = [{"type": "function", **tool["function"]} for tool in _TOOLS]
            choice = rng.choice(["auto", "none", "required", {"type": "function", "name": "add"}])
            body |= {"tools": tools, "tool_choice": choice, "parallel_tool_calls": rng.random() < 0.5}
        elif not formed and chance < 0.45:
            schema = rng.choice(_SCHEMAS)
            body["text"] = {"format": {"type": "json_schema", "name": "form", "schema": schema}}
        if self._tools and rng.random() < 0.3:
            body["reasoning"] = rng.choice([{"effort": "low"}, {"effort": "none"}, {"summary": "auto"}])
        if rng.random() < 0.2:
            called = {
                "type": "function_call",
                "call_id": "1",
                "name": "add",
                "arguments": rng.choice(['{"a": 1}', "[1"]),
            }
            items = [*messages, called, {"type": "function_call_output", "call_id": "1", "output": "4"}]
            thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "abc"}]}
            body["input"] = items if rng.random() < 0.5 else [*items[:-2], thought, *items[-2:]]
        return body

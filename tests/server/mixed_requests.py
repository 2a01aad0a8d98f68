"""Random requests to a server: any mixture that it may meet, the same for the same seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from lossless.fuzz import random_params, random_prompt
from tiny_checkpoints import WINDOW

TOKENS = 500
"""Token ids of prompts and biases lie below; every model has so many."""
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
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
    ("/v1/nothing", {}, 404),
)


@dataclass(frozen=True)
class Case:
    """A request.

    status: what it has to be answered with.
    leaves: how the client leaves before the end, one of LEAVINGS; None reads the whole answer.
    patience: how far it gets before: a part of a second, and of some chunks.
    """

    path: str
    body: dict[str, Any] | bytes
    status: int = 200
    leaves: str | None = None
    patience: float = 0.0

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
            if self._chat or path != CHAT:
                return Case(path, refused, status)
        body = self._params()
        chat = self._chat and rng.random() < 0.4
        body |= self._turns(body) if chat else {"prompt": self._prompt()}
        leaves = rng.choice(LEAVINGS) if rng.random() < self._leaving else None
        if leaves in ("after some chunks", "with a reset"):
            body["stream"] = True
        return Case(CHAT if chat else COMPLETION, body, leaves=leaves, patience=rng.random() ** 2)

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

    def _turns(self, body: dict[str, Any]) -> dict[str, Any]:
        """The fields that chat has instead; `body` loses what chat says differently."""
        rng = self._rng
        turns: dict[str, Any] = {"messages": [{"role": "user", "content": rng.choice(self._talks)}]}
        if rng.random() < 0.4:
            answer = rng.choice(["ab", "Ja 🙂", ""])
            turns["messages"] += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": rng.choice(_TEXTS)},
            ]
        logprobs = body.pop("logprobs", None)
        if logprobs is not None:
            turns |= {"logprobs": True, "top_logprobs": logprobs}
        turns["max_completion_tokens"] = body.pop("max_tokens")
        formed = any(name in body for name in ("regex", "grammar", "response_format"))
        if self._tools and not formed and rng.random() < 0.3:
            choice = rng.choice(["auto", "none", "required", {"type": "function", "function": {"name": "add"}}])
            turns |= {"tools": _TOOLS, "tool_choice": choice, "parallel_tool_calls": rng.random() < 0.5}
        if self._tools and rng.random() < 0.2:
            turns["chat_template_kwargs"] = {"enable_thinking": rng.choice([True, "true", "false"])}
        if rng.random() < 0.2:
            turns |= rng.choice([{"thinking_budget": rng.choice([0, 1, 9])}, {"reasoning_effort": "high"}])
        if rng.random() < 0.2:
            called = {"name": "add", "arguments": rng.choice(['{"a": 1}', '{"a', "[1]", None])}
            odd = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": called}]}]
            odd += [{"role": "tool", "tool_call_id": "1", "content": "4"}, {"role": "developer", "content": "ab"}]
            turns["messages"] = rng.sample([*turns["messages"], *odd], len(turns["messages"]) + 2)
        return turns

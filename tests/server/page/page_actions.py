"""What a person does on the page, and answers that a test makes up."""

from __future__ import annotations

import json
import re
from typing import Any

PROMPT = "abab" * 10


def set_up(page, **settings: object) -> None:
    """Sets fields of the settings, by id."""
    page.click("#open-settings")
    for name, value in settings.items():
        page.fill(f"#{name.replace('_', '-')}", str(value))
    page.click("#close-settings")


def ask(page, prompt=PROMPT, *, tokens=30, drafting="on", wait=True, mode="completion"):
    """Sends a prompt, greedily."""
    if page.locator("#mode").is_visible():
        page.select_option("#mode", mode)
    set_up(page, temperature=0, completion_max_tokens=tokens, chat_max_tokens=tokens)
    page.select_option("#drafting", drafting)
    page.fill("#prompt", prompt)
    page.click("#run")
    if wait:
        finished(page)


def say(page, text: str) -> None:
    """A message of a chat."""
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")
    finished(page)


def finished(page) -> None:
    """Waits until nothing runs."""
    page.locator("#stop").wait_for(state="hidden")


def figure(page, name: str) -> str:
    return page.locator(f"dd[data-figure={name}]").first.inner_text()


def bodies_of(page) -> list[dict[str, Any]]:
    """The requests for answers, as they are sent from now on."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: "completions" in request.url and bodies.append(request.post_data_json))
    return bodies


def answer_with(page, *answers: str) -> None:
    """From now on the server answers with these streams, one after the other; the last one again and again."""
    left = list(answers)

    def fulfil(route):
        body = left.pop(0) if len(left) > 1 else left[0]
        route.fulfill(body=body, content_type="text/event-stream")

    page.unroute_all()
    page.route("**/v1/*completions", fulfil)
    page.route("**/v1/chat/completions", fulfil)


def stream(*chunks: dict[str, Any], end: str = "data: [DONE]\n\n") -> str:
    """Server-sent events; the server also sends comments."""
    return ": waiting\n\n" + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def chunk(
    delta: dict[str, Any], tokens: list[str], *, reason: str | None = None, stats=None, sources=None, rejected=None
):
    """A chunk of a chat's stream, of tokens with these texts."""
    return {
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        "outrider": {
            "token_ids": list(range(7, 7 + len(tokens))),
            "texts": tokens,
            "sources": sources or [None] * len(tokens),
            "rejected_texts": rejected or [None] * len(tokens),
            **({"stats": stats} if stats else {}),
        },
    }


def words(text: str) -> list[str]:
    return re.findall(r"\s?\w+|\s|[^\w\s]", text)


def answered(text: str, thought: str = "", calls: tuple[tuple[str, str], ...] = ()) -> str:
    """The stream of a whole answer, a token a word, every second one drafted."""
    chunks = []
    for kind, part in (("reasoning_content", thought), ("content", text)):
        for number, word in enumerate(words(part)):
            texts = ["thought\n", word] if kind != "content" and not number else [word]
            sources = [None] * (len(texts) - 1) + ["lookup" if number % 2 else None]
            chunks.append(chunk({kind: word}, texts, sources=sources))
    functions = [
        {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": given}}
        for number, (name, given) in enumerate(calls)
    ]
    delta = {"tool_calls": functions} if calls else {"content": ""}
    return stream(*chunks, chunk(delta, [""], reason="tool_calls" if calls else "stop"))

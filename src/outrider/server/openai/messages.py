"""Messages of a chat request."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from outrider.server.openai.tools import GivenCall


class Message(BaseModel):
    """A message of any role."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[GivenCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def for_template(self) -> dict[str, Any]:
        """In the form of chat templates, with its content as one text.

        Raises:
            ValueError: it has an image or audio, or a call whose arguments are not a JSON object.
        """
        content = self.content
        if isinstance(content, list):
            for part in content:
                if part.get("type") != "text":
                    kind = part.get("type")
                    raise ValueError(
                        f"a message has a part of type {kind!r}, and this model reads text alone: leave it out"
                    )
            content = "".join(str(part.get("text", "")) for part in content)
        plain: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": content or ""}
        if self.tool_calls:
            plain["tool_calls"] = [call.for_template() for call in self.tool_calls]
        others = {name: getattr(self, name) for name in ("name", "tool_call_id", "reasoning_content")}
        return plain | {name: value for name, value in others.items() if value is not None}

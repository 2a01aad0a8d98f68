"""Tells the control tokens that a chat template writes from the same texts in the data that it renders.

A template's literals, and nothing else, are its own. When it is compiled, a tag is put before each control token in
them, and its renderings are split at the tags. The tag is random, so no message can hold it. The data is rendered
unchanged: filters and comparisons see it as it is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes


class TaggedTemplate:
    """A template whose renderings are split at its own control tokens.

    Args:
        marks: texts of control tokens.
        own: variables that are the checkpoint's, so that control tokens in them are the template's own too.

    Raises:
        jinja2.TemplateError: the source is not a valid template.
    """

    def __init__(
        self, environment: jinja2.Environment, source: str, marks: Collection[str], own: Mapping[str, str]
    ) -> None:
        tree = environment.parse(source)
        written = "\0".join([written_by(tree), *own.values()])
        found = sorted((mark for mark in marks if mark in written), key=len, reverse=True)  # the longest comes first
        self._marks = re.compile("|".join(map(re.escape, found)) or "(?!)")
        self._tag = str(secrets.randbits(128))  # digits survive filters such as `upper`
        for node in _literals(tree):
            if isinstance(node, nodes.TemplateData):
                node.data = self._tagged(node.data)
            else:
                node.value = self._tagged(node.value)
        self._template = environment.from_string(tree)
        self._own = {name: self._tagged(text) for name, text in own.items()}

    def render(self, variables: Mapping[str, Any]) -> list[str]:
        """The rendering as text, control token, text, ..., text. Raises whatever the template raises."""
        text = self._template.render({**variables, **self._own})
        return [self.untagged(part) for part in re.split(f"{self._tag}({self._marks.pattern})", text)]

    def untagged(self, text: str) -> str:
        """Text of the template's, an error's say, without tags."""
        return text.replace(self._tag, "")

    def _tagged(self, text: str) -> str:
        return self._marks.sub(lambda mark: self._tag + mark[0], text)


def written_by(tree: nodes.Template) -> str:
    """All literals of a template."""
    return "\0".join(node.data if isinstance(node, nodes.TemplateData) else node.value for node in _literals(tree))


def _literals(tree: nodes.Template) -> Iterator[nodes.TemplateData | nodes.Const]:
    yield from tree.find_all(nodes.TemplateData)
    yield from (node for node in tree.find_all(nodes.Const) if isinstance(node.value, str))

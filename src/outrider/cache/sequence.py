"""A sequence that runs or waits to run: its tokens, its cache, and its place in the prefix tree."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from outrider.backends import cpu
from outrider.cache import checkpoints
from outrider.cache.node import Node
from outrider.cache.rows import MediumRows, Row, common, rows_between
from outrider.cache.states import AnyPage, KeepsStates


@dataclass(eq=False)
class Sequence:
    """See the module.

    Attributes:
        cache: keys and values of `tokens[:cache.length]`.
        tokens: the prompt, and the answer as it grows.
        prompt: the rows of the prompt.
        limit: most positions that it may come to hold.
        scope: sequences of other scopes share nothing with it.
        media: the rows that carry embeddings, ascending.
        reuse, keep: whether it takes what others computed, and leaves what it computes to others.
        states: what its drafters keep; None if none keeps anything.
        awaited: while it waits, the sequence that computes what it will begin with, and how many positions.
        root: of its scope in the tree, once it runs; until then the request waits.
        path: the nodes of the pages that it has filled; empty without `keep`, beyond what it took.
        own: pages of full attention that it holds though another sequence's page is in the tree for the same rows.
        reused: positions that it took from others.
        dropped, thinned: by group of layers, how many pages it has released behind the window, and has judged by
            `checkpoints.worth_keeping`.
    """

    cache: cpu.KvCache
    tokens: list[int]
    prompt: tuple[Row, ...]
    limit: int
    scope: Hashable
    media: tuple[MediumRows, ...]
    reuse: bool
    keep: bool
    states: KeepsStates | None = None
    awaited: tuple[Sequence, int] | None = None
    root: Node[AnyPage] | None = None
    path: list[Node[AnyPage]] = field(default_factory=list)
    own: int = 0
    reused: int = 0
    dropped: list[int] = field(default_factory=list)
    thinned: list[int] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        """Whether it has what it needs to run."""
        return self.root is not None

    def begin(self, length: int, page: int, windows: Tokens[int]) -> None:
        """It runs, with the first `length` positions of others; pages behind their windows were left there."""
        self.reused = length
        self.dropped = [max(length - window, 0) // page for window in windows]
        self.thinned = [max(length - window - checkpoints.NEWEST, 0) // page for window in windows]

    def let_go(self) -> None:
        """It has ended: a caller may hold the request, and so this, but no pages."""
        self.root, self.path, self.states = None, [], None
        self.cache.truncate(0)

    def turn_in(self, index: int, page: int) -> bool:
        """Whether its prompt ends within page `index`, or at its end."""
        return index * page < len(self.prompt) <= (index + 1) * page

    def rows(self, begin: int, end: int) -> tuple[Row, ...]:
        """The rows of positions `begin` to `end`."""
        return rows_between(self.tokens, self.media, begin, end)

    def shared(self, other: Sequence) -> int:
        """The number of rows that both prompts begin with."""
        return common(self.prompt, other.prompt)

"""Which sequences run, what they take from each other, and how much memory all of it may be.

A sequence is opened, and waits. It begins between two passes, with the longest prefix that any other of its scope has
computed, once

- no running sequence is about to compute a longer one: what two prompts begin with is computed once;
- its worst case fits beside those of the sequences that run. Sequences begin in their order of arrival as far as memory
  is concerned, so none waits for ever.

While it runs, the pages that it fills are in the tree for others, and leave it when neither it nor a return needs them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import cast

from outrider.backends import cpu
from outrider.cache import checkpoints
from outrider.cache.admission import Admission
from outrider.cache.node import Node
from outrider.cache.rows import MediumRows, outside_media, rows_between
from outrider.cache.sequence import Sequence
from outrider.cache.states import AnyPage, StatePage, StatePages
from outrider.cache.tree import Part, Prefix, Store, Tree


class CachePool:
    """See the module. One thread at a time.

    Args:
        pages: the memory of keys and values.
        max_positions: longest sequence, rows of a pass included.
        max_rows: most rows of one pass.
        budget: bytes of all pages together.
        kept_bytes: bytes of those among them that no running sequence uses; 0 for none.
        store: where pages go that leave memory; None for none.
        states: the memory of what drafters keep.
    """

    def __init__(
        self,
        pages: cpu.KvPages,
        max_positions: int,
        max_rows: int,
        *,
        budget: int,
        kept_bytes: int = 0,
        store: Store[AnyPage] | None = None,
        states: StatePages | None = None,
    ) -> None:
        self.pages, self._max_positions, self._max_rows = pages, max_positions, max_rows
        self.states, windows = states or StatePages({}), pages.windows
        self._groups = range(len(windows))
        page_bytes = [*(pages.page_bytes(group) for group in self._groups), *self.states.page_bytes]
        self.tree: Tree[AnyPage] = Tree(cpu.PAGE_POSITIONS, windows, page_bytes, store)
        self.admission = Admission(pages, max_rows, budget, self.states)
        self.most_bytes = kept_bytes
        self._waiting: dict[Sequence, None] = {}  # in order of arrival
        self._running: dict[Sequence, None] = {}
        self._full = False  # whether the first one that waits for memory does so until another one ends

    @property
    def in_use(self) -> int:
        """Number of sequences that are open."""
        return len(self._waiting) + len(self._running)

    @property
    def kept(self) -> int:
        """Number of pages that no running sequence uses."""
        return len(self.tree)

    @property
    def kept_bytes(self) -> int:
        """Their memory."""
        return self.tree.unused_bytes

    @property
    def bytes_in_use(self) -> int:
        """Memory of all pages."""
        return self.pages.bytes_in_use + self.states.bytes_in_use

    @property
    def usage(self) -> float:
        """Fraction of the memory that running sequences hold. What none uses is evicted when one needs it."""
        return (self.bytes_in_use - self.kept_bytes) / self.admission.budget

    @property
    def most_pages(self) -> int:
        """Pages of all layers that fit into the memory."""
        return self.admission.budget // sum(self.tree.page_bytes)

    def new(self) -> cpu.KvCache:
        """An empty cache."""
        return cpu.KvCache(self.pages, self._max_positions, self._max_rows)

    def open(
        self,
        tokens: list[int],
        *,
        limit: int,
        salt: Hashable = "",
        media: tuple[MediumRows, ...] = (),
        reuse: bool = True,
        keep: bool = True,
    ) -> Sequence:
        """A sequence for the prompt `tokens`, a list that the answer will extend. It waits until `admit` lets it run.

        Args:
            limit: most positions that it may come to hold.
            salt: sequences of other salts share nothing with it.
            media: the rows of the prompt that carry embeddings, ascending.
            reuse, keep: whether it takes what others computed, and leaves what it computes to others.

        Raises:
            OutriderError: it could never fit into the memory.
        """
        self.check(limit)
        prompt = rows_between(tokens, media, 0, len(tokens))
        sequence = Sequence(self.new(), tokens, prompt, limit, salt, media, reuse, keep)
        self._waiting[sequence] = None
        return sequence

    def check(self, limit: int) -> None:
        """Raises OutriderError if a sequence of `limit` positions could never fit into memory. Any thread may call."""
        self.admission.check(limit)

    def longest(self, limit: int) -> int:
        """The most positions, at most `limit`, of a sequence that can run."""
        return self.admission.longest(limit)

    def admit(self) -> None:
        """Begins the waiting sequences that can. To be called between two passes."""
        for sequence in () if self._full else list(self._waiting):
            if self._is_computed_by_another(sequence):
                continue
            prefix = self._prefix(sequence)
            if self._will_be_longer(sequence, prefix.length):
                continue
            if not self.admission.fits(sequence.limit, prefix.nodes, self.tree.used, self._running):
                self._full = True
                return
            self._begin(sequence, prefix)

    def _is_computed_by_another(self, sequence: Sequence) -> bool:
        """Whether that which it waits for still goes on."""
        if sequence.awaited is None:
            return False
        other, length = sequence.awaited
        return other in self._running and other.cache.length < length

    def _will_be_longer(self, sequence: Sequence, length: int) -> bool:
        """Whether a running sequence is to compute more than a page of the prompt behind its first `length` rows."""
        found, page = None, self.tree.page
        for other in self._running if sequence.reuse else ():
            same = other.prompt[length : length + page + 1] == sequence.prompt[length : length + page + 1]  # soon seen
            if same and other.keep and other.scope == sequence.scope and other.cache.length < len(other.prompt):
                shared = outside_media(min(sequence.shared(other), len(sequence.prompt) - 1), sequence.media)
                if shared > max(other.cache.length, length + page):
                    found, length = (other, shared), shared
        sequence.awaited = found
        return found is not None

    def _prefix(self, sequence: Sequence) -> Prefix[AnyPage]:
        if not sequence.reuse:
            return Prefix([], (), 0)
        root = self.tree.root(sequence.scope)
        nodes = self.tree.walk(root, sequence.prompt)
        tip = nodes[-1] if nodes else root
        others = [self._next_page(other) for other in self._running if other.keep and self._tip(other) is tip]
        return self.tree.longest(nodes, root, sequence.prompt, sequence.media, others)

    def _next_page(self, sequence: Sequence) -> Part[AnyPage]:
        """The page behind those that a sequence has in the tree, as far as it is committed."""
        index, page = len(sequence.path), self.tree.page
        rows = sequence.rows(index * page, min((index + 1) * page, sequence.cache.length))
        if not rows:
            return Part((), ())
        layers = [sequence.cache.page(group, index) for group in self._groups]
        none = [None] * len(self.states.kinds)
        return Part(rows, [*layers, *(none if sequence.states is None else sequence.states.of_page(index))])

    @staticmethod
    def _tip(sequence: Sequence) -> Node[AnyPage]:
        assert sequence.root is not None
        return sequence.path[-1] if sequence.path else sequence.root

    def _begin(self, sequence: Sequence, prefix: Prefix[AnyPage]) -> None:
        del self._waiting[sequence]
        sequence.awaited = None
        sequence.root = self.tree.enter(sequence.scope)
        self._running[sequence] = None
        sequence.path = list(prefix.nodes)
        self.tree.use(prefix.nodes)
        sequence.begin(prefix.length, self.tree.page, self.tree.windows)
        by_index = [*(node.pages for node in prefix.nodes), *([prefix.last] if prefix.last else [])]
        layers = [cast("list[cpu.KvPage | None]", [pages[group] for pages in by_index]) for group in self._groups]
        sequence.cache.resume(layers, prefix.length)
        if sequence.states is not None and prefix.length:
            kept = [cast("list[StatePage | None]", pages[len(self._groups) :]) for pages in by_index]
            sequence.states.resume(prefix.length, kept)
        self.make_room(())  # the last page was copied

    def make_room(self, rows: Iterable[tuple[Sequence, int]]) -> None:
        """Evicts what no running sequence uses, until a pass with so many rows of each of these fits."""
        page = self.tree.page
        new = sum(-(-(of.cache.length + count) // page) - of.cache.length // page for of, count in rows)
        needed = new * sum(self.tree.page_bytes)
        while self.bytes_in_use + needed > self.admission.budget:
            if not self.tree.evict() and not self._thin_out():
                return

    def _thin_out(self) -> bool:
        """Drops all pages of sliding layers in running sequences that no window holds; False if there were none."""
        sliding = [group for group, window in enumerate(self.tree.windows) if window]
        held = {
            sequence.cache.page(group, index)
            for sequence in self._running
            for group in sliding
            for index in range(sequence.dropped[group], -(-sequence.cache.length // self.tree.page))
        }
        found = False
        for node in {node: None for sequence in self._running for node in sequence.path}:
            for group in sliding:
                if node.pages[group] is not None and node.pages[group] not in held:
                    node.pages[group], found = None, True
        return found

    def committed(self, sequence: Sequence) -> None:
        """Puts the pages that a sequence has filled into the tree, and drops those behind the windows. To be called
        after a commit."""
        page, length = self.tree.page, sequence.cache.length
        while sequence.keep and (len(sequence.path) + 1) * page <= length:
            self._add(sequence)
        for group, window in enumerate(self.tree.windows):
            if not window:
                continue
            for index in range(sequence.dropped[group], max(length - window, 0) // page):
                sequence.cache.drop(group, index)
                sequence.dropped[group] = index + 1
            behind = min(max(length - window - checkpoints.NEWEST, 0) // page, len(sequence.path))
            for index in range(sequence.thinned[group], behind):
                if not checkpoints.worth_keeping(sequence.path, index, page, window):
                    sequence.path[index].pages[group] = None
                sequence.thinned[group] = index + 1

    def _add(self, sequence: Sequence) -> None:
        """Puts the next page that the sequence has filled into the tree."""
        tip, (rows, pages) = self._tip(sequence), self._next_page(sequence)
        sequence.own += rows in tip.children and tip.children[rows].users > 0
        sequence.path.append(self.tree.add(tip, rows, pages, turn=sequence.turn_in(len(sequence.path), self.tree.page)))

    def close(self, sequence: Sequence, *, failed: bool = False) -> None:
        """Ends a sequence. The pages that it filled stay, and unless it failed the last one, as far as it goes."""
        self._full = False
        if sequence in self._waiting:
            del self._waiting[sequence]
            return
        del self._running[sequence]
        if sequence.keep and not failed:
            self._keep_last(sequence)
        self.tree.release(sequence.path)
        assert sequence.root is not None
        self.tree.leave(sequence.root)
        sequence.let_go()
        while self.tree.unused_bytes > self.most_bytes:
            self.tree.evict()

    def _keep_last(self, sequence: Sequence) -> None:
        rows, pages = self._next_page(sequence)
        if rows:
            turn = sequence.turn_in(len(sequence.path), self.tree.page)
            self.tree.add_last(self._tip(sequence), rows, pages, turn=turn)

    def clear(self) -> None:
        """Drops what no running sequence uses."""
        self.tree.clear()

    def flush(self) -> None:
        """Gives all that is kept to the store, at the end."""
        if self.tree.store is not None:
            self.tree.store.finish(reversed(list(self.tree)))

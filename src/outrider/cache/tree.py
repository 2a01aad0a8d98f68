"""A radix tree over pages: what running and finished sequences have computed, by their rows.

A page that a running sequence uses stays. Of the others, the least recently used one goes first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol

from outrider.cache.node import Node, Page, child_key, root_key
from outrider.cache.rows import MediumRows, Row, common, outside_media


class Part(NamedTuple, Generic[Page]):
    """A page whose first rows are computed: of a node, of a running sequence, or of a store."""

    rows: tuple[Row, ...]
    pages: Sequence[Page | None]


class Prefix(NamedTuple, Generic[Page]):
    """The longest beginning of a prompt from which it can be continued.

    Attributes:
        nodes: the pages that it fills.
        last: as `Node.pages`, the page that holds the rest of it; empty if there is none.
        length: positions.
    """

    nodes: list[Node[Page]]
    last: Sequence[Page | None]
    length: int


class Store(Protocol[Page]):
    """Where pages go that leave memory, and where they come back from, such as a folder. Keys are those of nodes."""

    def keep(self, node: Node[Page]) -> None:
        """Called before a node leaves the tree; its rows, key and pages are complete, its children have left."""

    def find(self, parent: bytes, rows: tuple[Row, ...]) -> Part[Page] | None:
        """Of the pages kept below the node with key `parent`, the one with the most rows in common with `rows` (those
        of one page of a prompt, or of its last, shorter one)."""

    def finish(self, nodes: Iterable[Node[Page]]) -> None:
        """Keeps these nodes too, each before its parent. Called at the end, and waits for it."""


class Tree(Generic[Page]):
    """See the module.

    Args:
        page: positions of a page.
        windows: by group of layers; 0 for full attention.
        page_bytes: by group, then by kind of drafter. A page may lack what drafters keep.
        store: None for none.

    Attributes:
        unused_bytes: memory of the pages that no running sequence uses.
        used: number of nodes that running sequences use.
    """

    def __init__(
        self, page: int, windows: Sequence[int], page_bytes: Sequence[int], store: Store[Page] | None = None
    ) -> None:
        self.page, self.windows, self.page_bytes, self.store = page, tuple(windows), tuple(page_bytes), store
        self._roots: dict[bytes, Node[Page]] = {}
        self._unused: dict[Node[Page], None] = {}  # least recently used first
        self.unused_bytes = self.used = 0

    def __len__(self) -> int:
        """Nodes that no running sequence uses."""
        return len(self._unused)

    def __iter__(self) -> Iterator[Node[Page]]:
        """All nodes, each behind its parent."""
        waiting = list(self._roots.values())
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            if node.parent is not None:
                yield node

    def root(self, scope: Hashable) -> Node[Page]:
        """The root of a scope."""
        key = root_key(scope)
        return self._roots.get(key) or Node(None, (), key, [])

    def enter(self, scope: Hashable) -> Node[Page]:
        """The root of a scope, for a sequence that begins to run."""
        root = self.root(scope)
        self._roots[root.key] = root
        root.users += 1
        return root

    def leave(self, root: Node[Page]) -> None:
        """That sequence has ended."""
        root.users -= 1
        self._forget(root)

    def _forget(self, root: Node[Page]) -> None:
        """Salts may be many: no root stays that nothing hangs from."""
        if not root.users and not root.children:
            self._roots.pop(root.key, None)

    def walk(self, root: Node[Page], rows: tuple[Row, ...]) -> list[Node[Page]]:
        """The nodes of the whole pages that `rows` begins with."""
        nodes, node = list[Node[Page]](), root
        for begin in range(0, len(rows) - self.page + 1, self.page):
            of_page = rows[begin : begin + self.page]
            found = node.children.get(of_page) or self._stored(node, of_page)
            if found is None:
                break
            nodes.append(found)
            node = found
        return nodes

    def _stored(self, node: Node[Page], rows: tuple[Row, ...]) -> Node[Page] | None:
        found = None if self.store is None else self.store.find(node.key, rows)
        if found is None or found.rows != rows:
            return None
        child = self._insert(node, rows, found.pages)
        self._rest(child)
        return child

    def longest(
        self,
        nodes: list[Node[Page]],
        root: Node[Page],
        rows: tuple[Row, ...],
        media: Sequence[MediumRows],
        others: Iterable[Part[Page]],
    ) -> Prefix[Page]:
        """The longest prefix of `rows`, less its last row, that has the whole window of each sliding layer.

        The last row is always computed, since its hidden state is not kept.

        Args:
            nodes: those of `walk`.
            others: pages after the last of these nodes that running sequences compute.
        """
        tip = nodes[-1] if nodes else root
        rest = rows[len(nodes) * self.page :][: self.page]
        parts = [*(Part(child.rows, child.pages) for child in tip.children.values()), *others]
        if self.store is not None and (found := self.store.find(tip.key, rest)) is not None:
            parts.append(found)
        whole = [part for part in parts if self._is_whole(part.pages)]
        last = max(whole, key=lambda part: common(part.rows, rest), default=Part[Page]((), ()))
        pages = [*(node.pages for node in nodes), last.pages]
        # Less than a page: whole ones are in `nodes`, but for one that a store has got only since then.
        most = len(nodes) * self.page + min(common(last.rows, rest), self.page - 1)
        length = self._resumable(pages, min(most, len(rows) - 1), media)
        full = length // self.page
        if length > len(nodes) * self.page and last.rows in tip.children:
            self._touch(tip.children[last.rows])
        return Prefix(nodes[:full], list(pages[full]) if length % self.page else [], length)

    def _resumable(self, pages: Sequence[Sequence[Page | None]], length: int, media: Sequence[MediumRows]) -> int:
        """The longest prefix of at most `length` rows with whole windows and media. `pages` are by index and group.

        A window is that of the last row, which a drafter with cross-attention sees again: a position more than the next
        row sees.
        """
        while True:
            found = outside_media(length, media)
            for group, window in enumerate(self.windows):
                needed = range(max(found - window, 0) // self.page, -(-found // self.page)) if window else ()
                missing = next((index for index in needed if pages[index][group] is None), None)
                if missing is not None:
                    found = missing * self.page
            if found == length:
                return length
            length = found

    def use(self, nodes: Iterable[Node[Page]]) -> None:
        """A running sequence begins to use these nodes."""
        for node in nodes:
            if node.users == 0:
                del self._unused[node]
                self.unused_bytes -= self.bytes_of(node)
                self.used += 1
            node.users += 1

    def release(self, path: Sequence[Node[Page]]) -> None:
        """A running sequence ends; `path` are the nodes that it used, from the root on."""
        for node in reversed(path):
            node.users -= 1
            if node.users == 0:
                self.used -= 1
                self._rest(node)

    def _rest(self, node: Node[Page]) -> None:
        self._unused[node] = None
        self.unused_bytes += self.bytes_of(node)

    def add(self, parent: Node[Page], rows: tuple[Row, ...], pages: Sequence[Page | None], *, turn: bool) -> Node[Page]:
        """The node of a page that a running sequence has filled, which now uses it. One that is there keeps its pages
        while another sequence uses it, and gets those that it lacks."""
        node = parent.children.get(rows)
        if node is None:
            node = self._insert(parent, rows, pages)
            self.used += 1
            node.users = 1
        else:
            layers = len(self.windows)
            others = node.pages if node.users else [*(None,) * layers, *node.pages[layers:]]
            self.use([node])
            node.pages = [new if old is None else old for old, new in zip(others, pages, strict=True)]
        node.turn |= turn
        return node

    def add_last(self, parent: Node[Page], rows: tuple[Row, ...], pages: Sequence[Page | None], *, turn: bool) -> None:
        """Keeps the page that a sequence had not filled at its end, unless another one has its rows."""
        for child in parent.children.values():
            if child.rows[: len(rows)] == rows and self._is_whole(child.pages):
                self._touch(child)
                child.turn |= turn
                return
        node = self._insert(parent, rows, pages)
        node.turn |= turn
        self._rest(node)

    def _is_whole(self, pages: Sequence[Page | None]) -> bool:
        """Whether no layer lacks its page."""
        return None not in pages[: len(self.windows)]

    def _touch(self, node: Node[Page]) -> None:
        if node in self._unused:
            del self._unused[node]
            self._unused[node] = None

    def _insert(self, parent: Node[Page], rows: tuple[Row, ...], pages: Sequence[Page | None]) -> Node[Page]:
        """A new node, in place of those with only its first rows."""
        node = Node(parent, rows, child_key(parent.key, rows), list(pages))
        for shorter in [child for child in parent.children.values() if child.rows == rows[: len(child.rows)]]:
            node.turn |= shorter.turn
            self._remove(shorter)
        parent.children[rows] = node
        if parent.parent is None:  # perhaps of a scope that nothing was known of in memory
            self._roots[parent.key] = parent
        return node

    def evict(self) -> bool:
        """Drops the least recently used page; False if running sequences use all."""
        node = next(iter(self._unused), None)
        if node is None:
            return False
        while node.children:  # where a page was matched and its parents were not used since
            node = next(iter(node.children.values()))
        if self.store is not None:
            self.store.keep(node)
        self._remove(node)
        return True

    def clear(self) -> None:
        """Drops all pages that no running sequence uses."""
        for node in list(self._unused):
            self._remove(node)

    def _remove(self, node: Node[Page]) -> None:
        del self._unused[node]
        self.unused_bytes -= self.bytes_of(node)
        parent = node.parent
        assert parent is not None
        del parent.children[node.rows]
        if parent.parent is None:
            self._forget(parent)

    def bytes_of(self, node: Node[Page]) -> int:
        """Memory of the pages of a node."""
        return sum(size for size, page in zip(self.page_bytes, node.pages, strict=True) if page is not None)

"""What sequences take from each other, when they wait, and that neither memory nor order is ever wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from cache.fake_pages import MAX_ROWS, PAGE, PAGE_BYTES, WINDOWS, FakePool, make_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.cache import MediumRows, Sequence, checkpoints
from outrider.cache.rows import common
from outrider.cache.tree import Part
from outrider.errors import OutriderError

LONG = list(range(100, 130))


@pytest.fixture
def pool(monkeypatch):
    return make_pool(monkeypatch)


def compute(pool: FakePool, sequence: Sequence, upto: int | None = None) -> None:
    """Computes a prompt, in chunks."""
    pool.admit()
    assert sequence.runs
    while (rows := min((upto or len(sequence.tokens)) - sequence.cache.length, MAX_ROWS)) > 0:
        step(pool, sequence, rows)


def step(pool: FakePool, sequence: Sequence, rows: int) -> None:
    pool.make_room([(sequence, rows)])
    sequence.cache.compute(sequence, rows)
    pool.committed(sequence)


def run(pool: FakePool, tokens: list[int], answer: int = 3, **options) -> int:
    """Runs a request to its end; how many positions it took from others."""
    sequence = pool.open(list(tokens), limit=len(tokens) + answer, **options)
    compute(pool, sequence)
    for token in range(answer):
        sequence.tokens.append(1000 + token)
        step(pool, sequence, 1)
    pool.close(sequence)
    return sequence.reused


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 11, 12, 13, 27, 29, 30])
def test_a_prompt_takes_all_but_its_last_token(pool, length):
    assert run(pool, LONG[:length]) == 0
    assert run(pool, LONG[:length]) == length - 1
    assert run(pool, [*LONG[:length], 7]) == length


def test_a_prefix_is_taken_down_to_a_position_anywhere(pool):
    run(pool, LONG)
    for at in range(1, len(LONG)):
        assert run(pool, [*LONG[:at], 5, 6]) == at


def test_a_running_sequence_shares_what_it_has_committed(pool):
    first = pool.open(list(LONG), limit=40)
    compute(pool, first, upto=14)
    second = pool.open([*LONG[:16], 5], limit=40)
    compute(pool, second)
    assert second.reused == 14, "of the page that the first one has not filled, two positions"
    compute(pool, first)
    assert second.cache.page(0, 0) is first.cache.page(0, 0)


def test_what_another_is_computing_is_awaited(pool):
    first, second, third = (pool.open([*LONG, number], limit=40) for number in range(3))
    pool.admit()
    assert (first.runs, second.runs, third.runs) == (True, False, False)
    for _ in range(4):
        step(pool, first, 6)
        pool.admit()
        assert not second.runs
    step(pool, first, 6)
    pool.admit()
    assert (second.reused, third.reused) == (30, 30)


def test_little_in_common_is_not_worth_waiting_for(pool):
    first, second = pool.open(list(LONG), limit=40), pool.open([*LONG[:PAGE], 1, 2, 3], limit=40)
    pool.admit()
    assert (first.runs, second.runs) == (True, True)


def test_a_cancelled_request_hands_over_what_it_computed(pool):
    first, second, third = (pool.open(list(LONG), limit=40) for _ in range(3))
    compute(pool, first, upto=13)
    pool.close(first)
    pool.admit()
    assert (second.reused, third.runs) == (13, False)
    pool.close(second)
    pool.admit()
    assert third.reused == 13


@pytest.mark.parametrize("others", [{"salt": "other"}, {"reuse": False}], ids=["another scope", "which takes nothing"])
def test_who_shares_nothing_does_not_wait(pool, others):
    first, second = pool.open(list(LONG), limit=40), pool.open(list(LONG), limit=40, **others)
    pool.admit()
    assert (first.runs, second.runs, second.reused) == (True, True, 0)


def test_scopes_share_nothing(pool):
    assert [run(pool, LONG, salt=salt) for salt in ("", "a", "b", "a", "", "a ")] == [0, 0, 0, 29, 29, 0]


def test_who_keeps_nothing_leaves_nothing(pool):
    before = pool.kept, pool.pages.bytes_in_use
    assert run(pool, LONG, reuse=False, keep=False) == 0
    assert (pool.kept, pool.pages.bytes_in_use) == before == (0, 0)
    assert run(pool, LONG) == 0


def test_the_same_is_kept_once(pool):
    run(pool, LONG)
    held = pool.pages.bytes_in_use
    for _ in range(3):
        run(pool, LONG)
    assert pool.pages.bytes_in_use == held == pool.kept_bytes
    pool.clear()
    assert (pool.pages.bytes_in_use, pool.kept, pool.kept_bytes) == (0, 0, 0)


def test_a_failed_sequence_keeps_only_whole_pages(pool):
    sequence = pool.open(list(LONG), limit=40)
    compute(pool, sequence, upto=15)
    pool.close(sequence, failed=True)
    assert run(pool, LONG) == 12


def test_a_prefix_does_not_end_within_a_medium(pool):
    media = (MediumRows(6, 7, b"image"),)
    tokens = [*LONG[:6], *[0] * 7, *LONG[13:]]
    sequence = pool.open(list(tokens), limit=40, media=media)
    compute(pool, sequence, upto=9)
    pool.close(sequence)
    assert run(pool, tokens, media=media) == 6
    assert run(pool, tokens[:12], media=(MediumRows(6, 6, b"image"),)) == 6
    assert run(pool, tokens, media=(MediumRows(6, 7, b"other"),)) == 6
    assert run(pool, tokens) == 6
    assert run(pool, tokens, media=media) == 29


def test_least_recently_used_pages_go_first(pool):
    prompts = [[number, *LONG[:10]] for number in range(3)]
    for prompt in prompts:
        run(pool, prompt)
    one = pool.kept_bytes // 3
    assert run(pool, prompts[0]) == 10
    pool.most_bytes = 2 * one
    run(pool, [7], answer=0)
    assert [run(pool, prompt) for prompt in (prompts[0], prompts[2], prompts[1])] == [10, 10, 0]


def test_what_a_running_sequence_uses_stays(pool):
    sequence = pool.open(list(LONG), limit=40)
    compute(pool, sequence)
    pool.most_bytes = 0
    run(pool, [*LONG, 5])
    assert run(pool, LONG) == 29
    pool.close(sequence)
    assert (pool.kept, pool.pages.bytes_in_use) == (0, 0)


def cost(positions: int) -> int:
    """The most that a sequence takes."""
    pages = -(-positions // PAGE)
    return pages * PAGE_BYTES[0] + min(pages, -(-(WINDOWS[1] + MAX_ROWS) // PAGE) + 1) * PAGE_BYTES[1]


def test_what_can_never_fit_is_refused_with_the_figures(monkeypatch):
    pool = make_pool(monkeypatch, budget=cost(40))
    pool.open(list(LONG), limit=40)
    with pytest.raises(OutriderError) as caught:
        pool.open(list(LONG), limit=41)
    said = str(caught.value)
    assert said.startswith(
        "the request may come to 41 tokens, prompt and answer, whose keys and values take 1.2 kB; 1.1 kB of"
    )
    assert "at most 40 tokens fit: lower max_tokens" in said
    assert pool.in_use == 1


def test_what_does_not_fit_beside_what_runs_waits_in_turn(monkeypatch):
    pool = make_pool(monkeypatch, budget=cost(40) + cost(8))
    first = pool.open(list(LONG), limit=40)
    second, third = pool.open([1, 2], limit=40), pool.open([3, 4], limit=8)
    pool.admit()
    assert (first.runs, second.runs, third.runs) == (True, False, False)
    pool.close(first)
    pool.admit()
    assert (second.runs, third.runs) == (True, True)


def test_shared_pages_count_once(monkeypatch):
    pool = make_pool(monkeypatch, budget=cost(40) + 3 * cost(12))
    first = pool.open(list(LONG), limit=34)
    compute(pool, first)
    others = [pool.open([*LONG[:28], number], limit=34) for number in range(3)]
    pool.admit()
    assert all(other.runs for other in others)
    for other in (first, *others):
        pool.close(other)
    assert pool.pages.bytes_in_use <= pool.admission.budget


def test_kept_pages_count_as_soon_as_they_are_used(monkeypatch):
    pool = make_pool(monkeypatch, budget=cost(40) + cost(24))
    run(pool, LONG)
    first, second = pool.open([5] * 30, limit=40), pool.open(list(LONG), limit=40)
    pool.admit()
    assert (first.runs, second.runs) == (True, False)


def test_pages_that_two_computed_count_twice(monkeypatch):
    pool = make_pool(monkeypatch, budget=2 * cost(32) + cost(8))
    for _ in range(2):
        compute(pool, pool.open(list(LONG), limit=32, reuse=False))
    third, fourth = pool.open([5] * 8, limit=9), pool.open([5] * 8, limit=8)
    pool.admit()
    assert not third.runs
    pool.close(third)
    pool.admit()
    assert fourth.runs


class Folder:
    """A store that keeps pages in memory."""

    def __init__(self) -> None:
        self.kept: dict[bytes, dict[tuple, list]] = {}
        self.found = 0

    def keep(self, node) -> None:
        self.kept.setdefault(node.parent.key, {})[node.rows] = list(node.pages)

    def finish(self, nodes) -> None:
        for node in nodes:
            self.keep(node)

    def find(self, parent, rows):
        parts = [Part(*kept) for kept in self.kept.get(parent, {}).items()]
        best = max(parts, key=lambda part: common(part.rows, rows), default=None)
        self.found += best is not None
        return best


def test_pages_come_back_from_a_store(pool):
    """Those that are evicted, and at the end those that are left; in another scope nothing is found."""
    pool.tree.store = Folder()
    pool.most_bytes = 0
    assert [run(pool, LONG), run(pool, LONG), run(pool, [*LONG[:14], 5])] == [0, 29, 14]
    assert run(pool, LONG, salt="other") == 0
    assert (pool.kept, len(pool.tree._roots)) == (0, 0)
    pool.most_bytes = 10**9
    run(pool, [7, *LONG])
    pool.flush()
    pool.clear()
    assert run(pool, [7, *LONG]) == 30
    pool.tree.store = None
    assert run(pool, [7, *LONG]) == 30, "they are in memory again"


class SlowFolder(Folder):
    """Finds what lies below a page at the second time of asking only, as where a thread has yet to write it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[bytes] = set()

    def find(self, parent, rows):
        if parent in self.asked:
            return super().find(parent, rows)
        self.asked.add(parent)
        return None


def test_a_page_that_a_store_gets_between_two_questions(pool):
    pool.most_bytes = 0
    pool.tree.store = SlowFolder()
    run(pool, LONG)
    pool.tree.store.asked.clear()
    assert run(pool, LONG) == pool.tree.page - 1


@dataclass
class Request:
    """One of a random run; `arrives` and `cancelled` (behind that) in passes."""

    prompt: list[int]
    options: dict[str, object]
    answer: int
    arrives: int
    cancelled: int | None
    sequence: Sequence | None = None


def random_requests(rng: random.Random) -> list[Request]:
    """Prompts that begin alike, in two scopes, with and without media."""
    stems, found = [[rng.randrange(3) for _ in range(rng.randint(0, 60))] for _ in range(3)], []
    for _ in range(rng.randint(2, 10)):
        stem = rng.choice(stems)
        prompt = [*stem[: rng.randint(0, len(stem))], *(rng.randrange(3) for _ in range(rng.choice([1, 2, 9, 20])))]
        if rng.random() < 0.3:
            prompt = [*stem, 1]
        media = rng.choice([(), (), (MediumRows(3, 6, b"a"),), (MediumRows(3, 6, b"b"), MediumRows(10, 9, b"c"))])
        media = tuple(medium for medium in media if medium.first + medium.rows <= len(prompt))
        options = {"salt": rng.choice(["", "", "", "x"]), "media": media}
        options |= rng.choice([{}, {}, {}, {"reuse": False}, {"reuse": False, "keep": False}])
        cancelled = rng.choice([None, None, rng.randint(0, 12)])
        found.append(Request(prompt, options, rng.randint(0, 20), rng.randint(0, 20), cancelled))
    return found


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_requests_end_within_the_memory(seed):
    """All that begin attend to rows of their own, none waits for ever, and the books are right."""
    rng = random.Random(seed)
    asked = random_requests(rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "NEWEST", rng.choice([0, 6, 8000]))
        patch.setattr(checkpoints, "EVERY", rng.choice([8, 4096]))
        longest = max(len(one.prompt) + one.answer for one in asked)
        budget = cost(longest) + rng.choice([0, 1, 2, 5, 20]) * PAGE_BYTES[0]
        pool = make_pool(patch, budget=budget, kept_bytes=rng.choice([0, budget // 4, budget]))
        serve(pool, asked, rng)
        assert pool.in_use == 0
        pool.clear()
        assert (pool.pages.bytes_in_use, pool.kept_bytes, len(pool.tree._roots)) == (0, 0, 0)


def serve(pool: FakePool, left: list[Request], rng: random.Random) -> None:
    """Passes until all requests have ended."""
    for time in range(1000):
        for one in [one for one in left if one.sequence is None and one.arrives <= time]:
            limit = len(one.prompt) + one.answer
            one.sequence = pool.open(list(one.prompt), limit=limit, **one.options)
        opened = [one for one in left if one.sequence is not None]
        for one in [one for one in opened if one.cancelled is not None and one.cancelled <= time - one.arrives]:
            pool.close(one.sequence, failed=rng.random() < 0.5)
            left.remove(one)
            opened.remove(one)
        pool.admit()
        running = [one for one in opened if one.sequence.runs]
        assert running or not opened, "all wait"
        parts = [(one.sequence, rows_of_pass(one, rng)) for one in running]
        pool.make_room(parts)
        for sequence, rows in parts:
            sequence.cache.compute(sequence, rows)
            assert pool.pages.bytes_in_use <= pool.admission.budget
        for sequence, _ in parts:
            pool.committed(sequence)
        check_books(pool)
        for one in running:
            if one.sequence.cache.length == len(one.prompt) + one.answer:
                pool.close(one.sequence)
                left.remove(one)
        assert pool.kept_bytes <= pool.most_bytes
        if not left:
            return
    raise AssertionError("the requests do not end")


def rows_of_pass(one: Request, rng: random.Random) -> int:
    """The rows of a request in a pass: of its prompt, or one token of its answer."""
    length = one.sequence.cache.length
    if length < len(one.prompt):
        return min(len(one.prompt) - length, rng.randint(1, MAX_ROWS))
    if length < len(one.prompt) + one.answer:
        one.sequence.tokens.append(length % 2)
        return 1
    return 0


def check_books(pool: FakePool) -> None:
    """Sums that the tree keeps, counted anew."""
    nodes, running = list(pool.tree), list(pool._running)
    for node in nodes:
        assert node.users == sum(node in sequence.path for sequence in running)
        assert node.pages[0] is not None
        assert all(child.users <= node.users for child in node.children.values())
    unused = [node for node in nodes if not node.users]
    assert set(pool.tree._unused) == set(unused)
    assert pool.kept_bytes == sum(pool.tree.bytes_of(node) for node in unused)
    assert pool.tree.used == len(nodes) - len(unused)

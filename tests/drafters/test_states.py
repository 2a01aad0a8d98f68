"""What a drafter keeps of positions lives with the pages of the prefix cache: with it, a hit drafts as if computed."""

from __future__ import annotations

from collections.abc import Sequence

import gguf
import numpy as np
import pytest
from tiny_checkpoints import VOCAB, save_gguf

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.drafters import registry
from outrider.drafters.protocol import Ask, CommittedRows, Drafter, SequenceState
from outrider.drafters.tree import ROOT

PAGE, BYTES = cpu.PAGE_POSITIONS, 8
PARAMS = SamplingParams(max_tokens=12, ignore_end=True, draft=3)


class ChainDrafter(Drafter):
    """Keeps of each position a hash of its hidden state and of all before it, from which its drafts follow: so a draft
    is another one if any position's state is lost or wrong."""

    name = "chain"
    hidden = "all"

    def __init__(self) -> None:
        self.rows: dict[int, list[int | None]] = {}
        self.drafts: list[tuple[int, ...]] = []
        self.fails_at: str | None = None

    def open(self, sequence: SequenceState) -> None:
        self.rows[sequence.number] = []

    def resume(self, sequence: SequenceState, length: int, states: Sequence[np.ndarray | None]) -> None:
        assert self.fails_at != "resume"
        rows = self.rows[sequence.number]
        assert not rows
        for page in states:
            assert page is None or not page.flags.writeable
            rows += [None] * PAGE if page is None else page.view(np.int64).tolist()
        assert length <= len(rows) < length + PAGE
        del rows[length:]

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        own = self.rows[sequence.number]
        assert rows.first == len(own)
        for token, hidden in zip(rows.tokens.tolist(), rows.hidden, strict=True):
            before = own[-1] if own else 0
            own.append(None if before is None else hash_of(before, token, hidden))

    def state(self, sequence: SequenceState, page: int) -> np.ndarray | None:
        assert self.fails_at != "state"
        rows = self.rows[sequence.number][page * PAGE : (page + 1) * PAGE]
        if None in rows:
            return None
        return np.array(rows + [0] * (PAGE - len(rows)), np.int64).view(np.uint8)

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            parent, last = ROOT, self.rows[ask.sequence.number][-1]
            for depth in range(ask.budget if last is not None else 0):
                parent = ask.draft.add(parent, (last >> 8 * depth) % VOCAB, 0.5, self.name)
            self.drafts.append(tuple(node.token for node in ask.draft))

    def close(self, sequence: SequenceState) -> None:
        del self.rows[sequence.number]


def hash_of(before: int, token: int, hidden: np.ndarray) -> int:
    """The same in every process, unlike `hash`."""
    mixed = (before * 6364136223846793005 + token + int(hidden.view(np.uint32).sum())) % (1 << 64)
    return (mixed ^ mixed >> 31) >> 2


CHAIN = registry.Kind("chain", lambda _: ChainDrafter(), state_bytes=lambda _target, _drafter: BYTES)


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "tiny.gguf"
    return save_gguf(tiny("gemma4-e2b").model, path, gguf.GGMLQuantizationType.Q4_0)


@pytest.fixture
def start(model, monkeypatch):
    """Loads the model, with the drafter alone."""
    monkeypatch.setattr(registry, "KINDS", [CHAIN])

    def load(**options):
        return LLM(model, **{"threads": 1, "context": 1024, **options})

    return load


def drafter(llm) -> ChainDrafter:
    (found,) = llm.parts.engine.planner.drafters
    return found


def tokens(count, seed=0):
    return [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, count)]


def answer(llm, prompt, **changed):
    """(tokens, drafts, prompt tokens that were reused, those of them without a state)."""
    drafter(llm).drafts.clear()
    params = {"max_tokens": 12, "ignore_end": True, "draft": 3} | changed
    (output,) = llm.generate([prompt], SamplingParams(**params))
    stats = output.stats
    return output.token_ids, list(drafter(llm).drafts), stats.reused_tokens, stats.reused_without_state


def computed(llm, prompt):
    found = answer(llm, prompt, cache_prompt=False)
    assert found[2] == 0
    assert sum(map(len, found[1])) > 9
    return found[:2]


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 40])
def test_a_hit_drafts_as_if_computed(start, length):
    prompt = tokens(length)
    with start() as llm:
        expected = computed(llm, prompt)
        answer(llm, prompt)
        assert answer(llm, prompt) == (*expected, length - 1, 0)


@pytest.mark.parametrize("at", [1, PAGE - 1, PAGE, 2 * PAGE + 7])
def test_a_prompt_that_leaves_another_within_a_page(start, at):
    first, second = tokens(3 * PAGE), [*tokens(at), 5, *tokens(30, seed=1)]
    with start() as llm:
        expected = computed(llm, second)
        answer(llm, first)
        found = answer(llm, second)
    assert found[:2] == expected
    assert found[2] >= at
    assert found[3] == 0


def test_running_requests_share_it(start):
    """While both run: one takes what the other has, a page that is not full included, and the arrays are the same."""
    prompt, seen = tokens(2 * PAGE + 50), []
    with start() as llm:
        expected = computed(llm, [*prompt, 7])
        engine, resume = llm.parts.engine, drafter(llm).resume
        drafter(llm).resume = lambda *given: seen.append(given) or resume(*given)
        first = engine.add(list(prompt), SamplingParams(max_tokens=40, ignore_end=True, draft="off"))
        while not first.decoding:
            engine.step()
        drafter(llm).drafts.clear()
        second = engine.add([*prompt, 7], PARAMS)
        while not second.ended:
            engine.step()
        assert not first.ended
        assert tuple(second.answer) == expected[0]
        assert [draft for draft in drafter(llm).drafts if draft] == [draft for draft in expected[1] if draft]
        assert second.stats.reused_tokens == len(prompt)
        assert second.stats.reused_without_state == 0
        path = [node.pages[-1].data for node in first.sequence.path]
        assert all(one is other for one, other in zip(seen[0][2], path, strict=False))
        engine.cancel(first)
        assert not drafter(llm).rows


def test_it_counts_as_memory_and_goes_with_its_page(start):
    with start() as llm:
        caches = llm.parts.caches
        answer(llm, tokens(2 * PAGE), max_tokens=1)
        assert caches.states.bytes_in_use == 2 * PAGE * BYTES
        assert caches.bytes_in_use == caches.pages.bytes_in_use + 2 * PAGE * BYTES == caches.kept_bytes
        caches.clear()
        assert (caches.bytes_in_use, caches.kept_bytes) == (0, 0)
    with start(prefix_cache_bytes=1) as llm:
        answer(llm, tokens(2 * PAGE))
        assert llm.parts.caches.bytes_in_use == 0


def test_without_it_only_drafts_are_others(start, monkeypatch):
    prompt = tokens(2 * PAGE + 9)
    with start() as llm:
        expected = computed(llm, prompt)
        with monkeypatch.context() as patch:
            patch.setattr(drafter(llm), "state", lambda *_: None)
            answer(llm, prompt)
        found = answer(llm, prompt)
        assert found[0] == expected[0]
        assert found[1:] == ([()] * len(found[1]), len(prompt) - 1, len(prompt) - 1)
        llm.parts.caches.clear()
        answer(llm, prompt[:PAGE])
        whole = next(iter(llm.parts.caches.tree))
        answer(llm, prompt)
        whole.pages[-1] = None  # of the first page alone
        assert answer(llm, prompt)[3] == PAGE


def test_it_comes_back_from_disk(start, tmp_path):
    prompt = tokens(3 * PAGE + 40)
    options = {"prefix_cache_dir": tmp_path / "pages"}
    with start(**options) as llm:
        expected = computed(llm, prompt)
        answer(llm, prompt)
    with start(**options) as llm:
        assert answer(llm, prompt) == (*expected, len(prompt) - 1, 0)


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_file_costs_drafts_alone(start, tmp_path, damage, caplog):
    prompt, folder = tokens(2 * PAGE), tmp_path / "pages"
    with start(prefix_cache_dir=folder) as llm:
        expected, layers = computed(llm, prompt), len(llm.parts.caches.pages.windows)
        answer(llm, prompt, max_tokens=1)
    damaged = sorted(folder.glob(f"*.{layers}.page"))[0]
    if damage == "remove":
        damaged.unlink()
    else:
        content = bytearray(damaged.read_bytes())
        content[-3] ^= 16
        damaged.write_bytes(content[: -1 if damage == "cut" else None])
    with start(prefix_cache_dir=folder) as llm:
        found = answer(llm, prompt)
    assert found[0] == expected[0]
    assert found[2] == len(prompt) - 1
    assert found[3] in (PAGE, PAGE - 1)
    assert ("damaged" in caplog.text) == (damage != "remove")


@pytest.mark.parametrize("fails_at", ["state", "resume"])
def test_a_drafter_that_fails_ends_its_own_request(start, fails_at):
    prompt = tokens(PAGE + 9)
    with start() as llm:
        answer(llm, prompt, max_tokens=1)
        engine = llm.parts.engine
        drafter(llm).fails_at = fails_at
        request = engine.add([*prompt[:40], *tokens(PAGE, seed=2)], SamplingParams(max_tokens=40, ignore_end=True))
        while not request.ended:
            engine.step()
        assert isinstance(request.error, AssertionError)
        drafter(llm).fails_at = None
        assert answer(llm, prompt)[:2] == computed(llm, prompt)


def test_a_state_of_the_wrong_size_names_the_drafter(start, monkeypatch):
    with start() as llm:
        monkeypatch.setattr(drafter(llm), "state", lambda *_: np.zeros(5, np.uint8))
        with pytest.raises(ValueError, match=r"drafter chain is \(1024,\) uint8, not \(5,\) uint8"):
            answer(llm, tokens(PAGE + 1))

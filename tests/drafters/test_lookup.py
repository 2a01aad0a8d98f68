from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.drafters import lookup
from outrider.drafters.lookup import MIN_MATCH, HistoryDrafter, LookupDrafter
from outrider.drafters.protocol import Ask
from outrider.drafters.suffix import Cursor, SuffixIndex


def longest_repeated_suffix(tokens: list[int]) -> tuple[int, set[int]]:
    """Length of the longest suffix that also ends earlier, and every place where it does."""
    for length in range(len(tokens) - 1, 0, -1):
        suffix = tokens[len(tokens) - length :]
        ends = {end for end in range(length - 1, len(tokens) - 1) if tokens[end - length + 1 : end + 1] == suffix}
        if ends:
            return length, ends
    return 0, set()


@given(st.lists(st.integers(0, 2), max_size=60))
def test_the_index_finds_the_longest_repeated_suffix_at_any_time(tokens):
    index = SuffixIndex()
    for count, token in enumerate(tokens, start=1):
        index.append(token)
        length, ends = longest_repeated_suffix(tokens[:count])
        match = index.match()
        if length == 0:
            assert match is None
        else:
            assert match is not None
            assert match[0] == length
            assert match[1] in ends


def test_the_latest_occurrence_is_continued():
    tokens = [1, 2, 3, 9, 1, 2, 4, 9, 1, 2]
    assert propose(tokens, 2) == [4, 9]


def test_states_stay_within_two_a_token():
    index = SuffixIndex()
    for token in [0, 1, 0, 0, 1, 1, 0, 1] * 500:
        index.append(token)
    assert len(index._length) <= 2 * 4000 + 1


def propose(tokens: list[int], budget: int) -> list[int]:
    drafter = LookupDrafter(half)
    drafter.open(1, tokens, None, None, "")  # type: ignore[arg-type]
    return proposed(drafter, 1, budget)


def proposed(drafter, sequence: int, budget: int) -> list[int]:
    ask = Ask(sequence, budget)
    drafter.propose([ask])
    return [node.token for node in ask.draft]


def half(sequence, source, situation, guess):  # noqa: ARG001
    return 0.5


def test_a_match_that_reaches_the_end_goes_on_repeating():
    assert propose([7, 8, 7, 8], 5) == [7, 8, 7, 8, 7]
    assert propose([3, 3, 3], 4) == [3, 3, 3, 3]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_a_proposal_keeps_to_its_budget_and_needs_a_match(tokens, budget):
    drafted = propose(tokens, budget)
    assert len(drafted) in (0, budget)
    assert bool(drafted) == (longest_repeated_suffix(tokens)[0] >= MIN_MATCH)


def test_the_index_follows_the_growing_text():
    drafter, tokens = LookupDrafter(half), [1, 2, 3]
    drafter.open(1, tokens, None, None, "")  # type: ignore[arg-type]
    assert proposed(drafter, 1, 1) == []
    tokens += [1, 2]
    assert proposed(drafter, 1, 1) == [3]
    drafter.close(1)


def longest_known_suffix(text: list[int], known: list[int]) -> tuple[int, set[int]]:
    for length in range(len(text), 0, -1):
        suffix = text[len(text) - length :]
        ends = {end for end in range(length - 1, len(known)) if known[end - length + 1 : end + 1] == suffix}
        if ends:
            return length, ends
    return 0, set()


def ends_of(piece: list[int], known: list[int]) -> list[int]:
    ends = range(len(piece) - 1, len(known) - 1)
    return [end for end in ends if known[end - len(piece) + 1 : end + 1] == piece]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=80))
def test_a_cursor_finds_the_longest_suffix_that_a_growing_index_knows(steps):
    """True: the index grows by the token; False: the followed text does."""
    index = SuffixIndex()
    cursor, known, text = Cursor(index), [], []
    for grows, token in steps:
        if grows:
            index.append(token)
            known.append(token)
        else:
            cursor.advance(token)
            text.append(token)
        match = cursor.match()
        # A suffix that became known only after the text had passed it is not looked for again.
        longest, _ = longest_known_suffix(text, known)
        if match is not None:
            length, end, successors = match
            assert successors == len({known[i + 1] for i in ends_of(text[len(text) - length :], known)})
            assert length <= longest
            assert known[end - length + 1 : end + 1] == text[len(text) - length :]
        if not grows and steps[0][0] and all(g for g, _ in steps[: len(known)]):  # it knew everything beforehand
            assert (match[0] if match else 0) == longest


def test_history_proposes_what_earlier_requests_said():
    drafter = HistoryDrafter(half, capacity=100)
    first, second = [5, 6, 7, 8, 9, 10], [3, 5, 6, 7]
    drafter.open(1, first, None, None, "")  # type: ignore[arg-type]
    drafter.open(2, second, None, None, "")  # type: ignore[arg-type]
    drafter.close(1)
    assert proposed(drafter, 2, 4) == [8, 9, 10]  # and nothing beyond that text's end
    assert proposed(drafter, 2, 2) == [8, 9]
    second += [8, 4, 4]
    assert proposed(drafter, 2, 4) == []
    drafter.close(2)


def kept_tokens(drafter: HistoryDrafter) -> int:
    kept = sum(len(index) for generations in drafter._generations.values() for index in generations)
    assert kept == drafter._kept
    return kept


def say(drafter: HistoryDrafter, sequence: int, tokens: list[int], scope: str | None) -> None:
    drafter.open(sequence, tokens, None, None, scope)  # type: ignore[arg-type]
    drafter.close(sequence)


def drafted_after(drafter: HistoryDrafter, tokens: list[int], scope: str | None) -> list[int]:
    drafter.open(99, tokens, None, None, scope)  # type: ignore[arg-type]
    found = proposed(drafter, 99, 4)
    drafter._sequences.pop(99, None)  # it leaves nothing behind
    return found


def test_histories_of_different_scopes_are_separate():
    drafter = HistoryDrafter(half, capacity=100)
    say(drafter, 1, [5, 6, 7, 8, 9], "a")
    say(drafter, 2, [5, 6, 7, 1, 2], "b")
    assert drafted_after(drafter, [5, 6, 7], "a") == [8, 9]
    assert drafted_after(drafter, [5, 6, 7], "b") == [1, 2]
    assert drafted_after(drafter, [5, 6, 7], "c") == []


def test_a_sequence_without_a_scope_neither_reads_nor_leaves_history():
    drafter = HistoryDrafter(half, capacity=100)
    say(drafter, 1, [5, 6, 7, 8, 9], None)
    assert kept_tokens(drafter) == 0
    assert drafted_after(drafter, [5, 6, 7], "") == []
    say(drafter, 2, [5, 6, 7, 8, 9], "")
    assert drafted_after(drafter, [5, 6, 7], None) == []
    assert drafted_after(drafter, [5, 6, 7], "") == [8, 9]


def test_many_scopes_share_one_bound_and_the_least_recently_used_goes():
    drafter = HistoryDrafter(half, capacity=60)
    for number in range(200):
        say(drafter, number, [1, 2, 3, number], f"scope {number}")
        assert drafted_after(drafter, [1, 2, 3], "scope 0") == [0], "it is used again and again"
        assert kept_tokens(drafter) <= 60
        assert len(drafter._generations) <= 12
    assert drafted_after(drafter, [1, 2, 3], "scope 199") == [199]
    assert drafted_after(drafter, [1, 2, 3], "scope 100") == []


def test_scopes_are_bounded_however_short_their_texts(monkeypatch):
    monkeypatch.setattr(lookup, "_MOST_SCOPES", 10)
    drafter = HistoryDrafter(half, capacity=1000)
    for number in range(50):
        say(drafter, number, [number], f"scope {number}")
    assert len(drafter._generations) == 10


def test_a_history_without_room_keeps_nothing():
    drafter = HistoryDrafter(half, capacity=3)
    say(drafter, 1, [5, 6, 7, 8], "")
    assert kept_tokens(drafter) == 0


def test_history_is_bounded_and_forgets_the_oldest():
    drafter = HistoryDrafter(half, capacity=40)
    for number in range(50):
        drafter.open(number, [100 + number, 200 + number, 300 + number, 400 + number, 7], None, None, "")  # type: ignore[arg-type]
        drafter.close(number)
        assert kept_tokens(drafter) <= 40
        assert len(drafter._generations[""]) <= 2
    for number, known in ((49, True), (0, False)):
        drafter.open(99, [100 + number, 200 + number, 300 + number], None, None, "")  # type: ignore[arg-type]
        assert bool(proposed(drafter, 99, 2)) == known
        drafter.close(99)


def test_one_long_text_does_not_exceed_the_history():
    drafter = HistoryDrafter(half, capacity=40)
    drafter.open(1, list(range(1000)), None, None, "")  # type: ignore[arg-type]
    drafter.close(1)
    assert kept_tokens(drafter) <= 40
    drafter.open(2, [990, 991, 992], None, None, "")  # type: ignore[arg-type]
    assert proposed(drafter, 2, 3) == [993, 994, 995]

from __future__ import annotations

from drafters.sequences import proposed, sequence
from hypothesis import given
from hypothesis import strategies as st

from outrider.drafters.lookup import MIN_MATCH, LookupDrafter
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
    drafter, text = LookupDrafter(), sequence(1, tokens)
    drafter.open(text)
    return proposed(drafter, text, budget)


def test_a_match_that_reaches_the_end_goes_on_repeating():
    assert propose([7, 8, 7, 8], 5) == [7, 8, 7, 8, 7]
    assert propose([3, 3, 3], 4) == [3, 3, 3, 3]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_a_proposal_keeps_to_its_budget_and_needs_a_match(tokens, budget):
    drafted = propose(tokens, budget)
    assert len(drafted) in (0, budget)
    assert bool(drafted) == (longest_repeated_suffix(tokens)[0] >= MIN_MATCH)


def test_the_index_follows_the_growing_text():
    drafter, text = LookupDrafter(), sequence(1, [1, 2, 3])
    drafter.open(text)
    assert proposed(drafter, text, 1) == []
    text.tokens += [1, 2]
    assert proposed(drafter, text, 1) == [3]
    drafter.close(text)


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

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.sampling.params import SamplingParams
from outrider.speculation.lookup import MIN_MATCH, LookupDrafter, SuffixIndex
from outrider.speculation.tree import Draft


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
    drafter = LookupDrafter(lambda _: 0.5)
    drafter.open(1, tokens, None, SamplingParams())  # type: ignore[arg-type]
    draft = Draft()
    drafter.propose(1, draft, budget)
    return [node.token for node in draft]


def test_a_match_that_reaches_the_end_goes_on_repeating():
    assert propose([7, 8, 7, 8], 5) == [7, 8, 7, 8, 7]
    assert propose([3, 3, 3], 4) == [3, 3, 3, 3]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_a_proposal_keeps_to_its_budget_and_needs_a_match(tokens, budget):
    drafted = propose(tokens, budget)
    assert len(drafted) in (0, budget)
    assert bool(drafted) == (longest_repeated_suffix(tokens)[0] >= MIN_MATCH)


def test_the_index_follows_the_growing_text():
    drafter, tokens = LookupDrafter(lambda _: 0.5), [1, 2, 3]
    drafter.open(1, tokens, None, SamplingParams())  # type: ignore[arg-type]
    assert drafter.match_length(1) == 0
    tokens += [1, 2]
    draft = Draft()
    drafter.propose(1, draft, 1)
    assert [node.token for node in draft] == [3]
    drafter.close(1)

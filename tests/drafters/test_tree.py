from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.drafters.tree import HISTORY, ROOT, Draft, reported
from outrider.speculation.walk import walk


def test_sources_that_agree_share_a_path():
    draft = Draft()
    first = draft.add(ROOT, 5, 0.6, "mtp")
    again = draft.add(ROOT, 5, 0.9, "lookup")
    child = draft.add(again, 7, 0.5, "lookup")
    assert again == first
    assert len(draft) == 2
    assert draft.nodes[first].probability == 0.9
    assert draft.nodes[first].source == "mtp"
    assert draft.path_probabilities() == [0.9, 0.45]
    assert draft.nodes[child].depth == 1


def test_keeping_some_nodes_keeps_their_paths():
    draft = Draft()
    a = draft.add(ROOT, 1, 0.9, "x")
    draft.add(ROOT, 2, 0.1, "x")
    b = draft.add(a, 3, 0.5, "x")
    kept = draft.keep([b, a])
    assert [(n.token, n.parent, n.depth) for n in kept] == [(1, ROOT, 0), (3, 0, 1)]
    assert kept.child(0, 3) == 1


@given(order=st.permutations(["mtp", "lookup", HISTORY]))
def test_what_only_history_proposed_is_reported_as_lookup_and_never_as_rejected(order):
    draft = Draft()
    for source in order:
        draft.add(ROOT, 1, 0.9 if source == HISTORY else 0.3, source)
    alone = draft.add(ROOT, 2, 0.9, HISTORY)
    assert draft.nodes[0].source == next(source for source in order if source != HISTORY)
    assert draft.nodes[0].probability == 0.9
    assert (draft.nodes[alone].source, reported(draft.nodes[alone].source)) == (HISTORY, "lookup")
    assert walk(draft, lambda _: 3).rejected == 1
    assert walk(draft.keep([alone]), lambda _: 3).rejected is None


@given(st.permutations([(1, 0.5, "mtp"), (2, 0.2, "mtp"), (2, 0.9, HISTORY), (3, 0.9, HISTORY)]), st.booleans())
def test_which_token_is_reported_as_rejected_does_not_depend_on_history(proposals, keep):
    draft = Draft()
    for token, probability, source in proposals:
        draft.add(ROOT, token, probability, source)
    draft = draft.keep(list(range(len(draft)))) if keep else draft
    assert walk(draft, lambda _: 4).rejected == 1


@st.composite
def trees(draw):
    draft = Draft()
    for _ in range(draw(st.integers(0, 20))):
        parent = draw(st.integers(ROOT, len(draft) - 1))
        draft.add(parent, draw(st.integers(0, 3)), draw(st.floats(0, 1)), draw(st.sampled_from(["a", "b", HISTORY])))
    return draft


@given(draft=trees(), target=st.lists(st.integers(0, 3), min_size=22, max_size=22), limit=st.integers(1, 22))
def test_the_walk_gives_the_targets_own_tokens(draft, target, limit):
    """Whatever the tree holds, the tokens are those that the target says one after another."""
    given_out: list[int] = []

    def choose(node: int) -> int | None:
        expected_depth = 0 if node == ROOT else draft.nodes[node].depth + 1
        assert expected_depth == len(given_out)  # asked once per place, in order
        if len(given_out) == limit:
            return None
        given_out.append(target[len(given_out)])
        return given_out[-1]

    verdict = walk(draft, choose)
    assert verdict.tokens == target[: len(verdict.tokens)] == given_out
    assert len(verdict.tokens) <= limit
    assert [draft.nodes[node].token for node in verdict.accepted] == verdict.tokens[: len(verdict.accepted)]
    assert len(verdict.tokens) - len(verdict.accepted) in (0, 1)
    for before, node in zip([ROOT, *verdict.accepted], verdict.accepted, strict=False):
        assert draft.nodes[node].parent == before
    if len(verdict.tokens) < limit:  # it went as far as the tree did
        last = verdict.accepted[-1] if verdict.accepted else ROOT
        assert draft.child(last, verdict.tokens[-1]) is None
        proposed = [node.token for node in draft if node.parent == last and node.source != HISTORY]
        assert verdict.rejected in (proposed or [None])
    assert len(verdict.tokens) > len(verdict.accepted) or verdict.rejected is None

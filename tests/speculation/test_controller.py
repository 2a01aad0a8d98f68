from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.speculation.controller import Calibration, VerifyCost, best_nodes
from outrider.speculation.tree import ROOT, Draft


def chain(chances):
    draft, parent = Draft(), ROOT
    for token, chance in enumerate(chances):
        parent = draft.add(parent, token, chance, "lookup")
    return draft


def test_free_rows_are_all_taken_and_dear_ones_none():
    free = VerifyCost([1, 16], [1.0, 1.0])
    dear = VerifyCost([1, 2, 16], [1.0, 2.0, 16.0])
    assert best_nodes(chain([0.5] * 10), free) == list(range(10))
    assert best_nodes(chain([0.9] * 10), dear) == []


@given(
    st.lists(st.floats(0, 1), max_size=7),
    st.lists(st.floats(0.01, 0.9), min_size=8, max_size=8),
)
def test_the_chosen_prefix_is_the_best_of_all(chances, steps):
    rows = list(range(1, 9))
    cost = VerifyCost(rows, list(itertools.accumulate(steps, initial=1.0))[:8])
    draft = chain(chances)
    chosen = best_nodes(draft, cost)
    assert chosen == list(range(len(chosen)))

    def rate(count):
        return (1 + sum(draft.path_probabilities()[:count])) / cost(1 + count)

    assert rate(len(chosen)) >= max(rate(n) for n in range(len(chances) + 1)) - 1e-12


@given(st.data())
def test_the_chosen_nodes_of_a_tree_are_a_tree(data):
    draft = Draft()
    for token in range(data.draw(st.integers(0, 15))):
        draft.add(data.draw(st.integers(ROOT, len(draft) - 1)), token, data.draw(st.floats(0, 1)), "mtp")
    chosen = set(best_nodes(draft, VerifyCost([1, 16], [1.0, 1.4])))
    assert all(draft.nodes[node].parent == ROOT or draft.nodes[node].parent in chosen for node in chosen)


def test_cost_lies_on_lines_between_the_points_and_goes_on_beyond():
    cost = VerifyCost([1, 4, 16], [1.0, 1.3, 2.5])
    assert cost(1) == 1.0
    assert cost(2) == pytest.approx(1.1)
    assert cost(10) == pytest.approx(1.9)
    assert cost(28) == pytest.approx(3.7)


def test_cost_follows_what_is_measured_but_not_an_outlier():
    cost = VerifyCost([1, 2, 4], [1.0, 1.0, 1.0])
    for _ in range(200):
        cost.observe(1, 2.0)
    assert cost(1) == pytest.approx(2.0, rel=0.05)
    assert cost(4) >= cost(1)
    cost.observe(1, 1000.0)
    assert cost(1) < 2.2


def test_chances_are_learnt_and_forgotten():
    calibration = Calibration({"lookup": 0.6})
    assert calibration.chance("lookup", 2) == pytest.approx(0.6)
    for _ in range(300):
        calibration.observe("lookup", 2, 1, 0)
    assert calibration.chance("lookup", 2) < 0.05
    assert calibration.chance("lookup", 3) == pytest.approx(0.6)
    for _ in range(300):
        calibration.observe("lookup", 2, 1, 1)
    assert calibration.chance("lookup", 2) > 0.7

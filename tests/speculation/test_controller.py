from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.drafters.tree import ROOT, Draft
from outrider.speculation.budget import Pace, best_nodes, best_pace
from outrider.speculation.calibration import Acceptance, Calibration
from outrider.speculation.costs import VerifyCost, VerifyCosts


def chain(chances):
    draft, parent = Draft(), ROOT
    for token, chance in enumerate(chances):
        parent = draft.add(parent, token, chance, "lookup")
    return draft


def best(draft, cost, pace=None, certain=1, most=99):
    return best_nodes([draft], cost, certain, pace or certain / cost(certain), most)[0]


def test_free_rows_are_all_taken_and_dear_ones_none():
    free = VerifyCost([1, 16], [1.0, 1.0])
    dear = VerifyCost([1, 2, 16], [1.0, 2.0, 16.0])
    assert best(chain([0.5] * 10), free) == list(range(10))
    assert best(chain([0.5] * 10), free, most=4) == list(range(4))
    assert best(chain([0.9] * 10), dear) == []


def test_time_that_is_worth_more_is_spent_on_surer_tokens():
    cost = VerifyCost([1, 16], [1.0, 2.5])
    lengths = [len(best(chain([0.7] * 12), cost, pace)) for pace in (1.0, 2.0, 4.0, 20.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[2] > lengths[3] == 0


@given(
    st.lists(st.floats(0, 1), max_size=7),
    st.lists(st.floats(0.01, 0.9), min_size=8, max_size=8),
    st.floats(0.2, 5),
)
def test_the_chosen_prefix_is_the_best_of_all(chances, steps, pace):
    cost = VerifyCost(list(range(1, 9)), list(itertools.accumulate(steps, initial=1.0))[:8])
    draft = chain(chances)
    chosen = best(draft, cost, pace)
    assert chosen == list(range(len(chosen)))

    def net(count):
        return sum(draft.path_probabilities()[:count]) - pace * (cost(1 + count) - cost(1))

    assert net(len(chosen)) >= max(net(n) for n in range(len(chances) + 1)) - 1e-9


@given(st.data())
def test_the_chosen_nodes_of_trees_are_trees_and_share_the_rows(data):
    drafts = []
    for _ in range(data.draw(st.integers(1, 4))):
        drafts.append(Draft())
        for token in range(data.draw(st.integers(0, 15))):
            parent = data.draw(st.integers(ROOT, len(drafts[-1]) - 1))
            drafts[-1].add(parent, token, data.draw(st.floats(0, 1)), "mtp")
    chosen = best_nodes(drafts, VerifyCost([1, 16], [1.0, 1.4]), len(drafts), 1.0, 9)
    assert sum(map(len, chosen)) <= 9
    for draft, nodes in zip(drafts, chosen, strict=True):
        assert all(draft.nodes[node].parent == ROOT or draft.nodes[node].parent in nodes for node in nodes)
    # No node that was left out is likelier than one that was taken.
    taken = [draft.path_probabilities()[n] for draft, nodes in zip(drafts, chosen, strict=True) for n in nodes]
    left = [
        chance
        for draft, nodes in zip(drafts, chosen, strict=True)
        for n, chance in enumerate(draft.path_probabilities())
        if n not in nodes
    ]
    assert not taken or not left or min(taken) >= max(left)


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
    before = cost(1)
    cost.observe(1, 1000.0)
    assert cost(1) < 1.04 * before
    cost.observe(1, 0.001)
    assert cost(1) == pytest.approx(before, rel=0.01)


def test_a_machine_that_gets_faster_makes_all_row_counts_cheaper():
    cost = VerifyCost([1, 4, 16], [2.0, 2.4, 5.0])
    for _ in range(100):
        cost.observe(1, 1.0)
    assert cost(1) == pytest.approx(1.0, rel=0.05)
    assert cost(4) < 2.1


def test_what_a_further_row_costs_is_learnt_where_the_load_could_only_guess_it():
    cost = VerifyCost([1, 2, 4, 8, 16], [1.0, 1.08, 1.24, 1.56, 2.2])
    for _ in range(40):
        cost.observe(3, 1.0)  # further rows cost nothing on this machine
    assert cost(4) / cost(1) < 1.12


def test_noise_leaves_the_curve_where_it_is():
    random = np.random.default_rng(0)
    true = {1: 8.0, 2: 8.4, 4: 9.0, 8: 10.0, 16: 17.0}
    cost = VerifyCost(list(true), list(true.values()))
    worst = 0.0
    for _ in range(3000):
        rows = int(random.choice(list(true)))
        disturbed = random.random() < 0.05  # by another process
        cost.observe(rows, true[rows] * (3.0 if disturbed else float(random.normal(1, 0.08))))
        worst = max(worst, *(abs(cost(m) / true[m] - 1) for m in true))
    assert worst < 0.15


def test_each_range_of_contexts_has_its_own_curve():
    costs = VerifyCosts(VerifyCost([1, 4], [1.0, 1.2]))
    assert costs.at(10) is costs.at(511)
    assert costs.at(5000)(1) == costs.at(10)(1)
    for _ in range(200):
        costs.at(5000).observe(1, 3.0)
    assert costs.at(10)(1) == 1.0
    assert costs.at(5000)(1) == pytest.approx(3.0, rel=0.05)
    assert costs.at(100_000)(1) == costs.at(5000)(1)  # the nearest that is known


def test_the_pace_is_tokens_over_seconds_of_late():
    pace = Pace()
    assert pace.at_least(2.0) == 2.0
    for _ in range(200):
        pace.observe(1, 0.1)
        pace.observe(3, 0.3)
    assert pace.at_least(1.0) == pytest.approx(10)
    assert pace.at_least(12.0) == 12.0


def test_chances_are_learnt_and_forgotten():
    calibration = Calibration()
    assert calibration.chance("lookup", (2,), 0.6) == pytest.approx(0.6)
    for _ in range(300):
        calibration.observe("lookup", (2,), False)
    assert calibration.chance("lookup", (2,), 0.6) < 0.05
    assert calibration.chance("lookup", (3,), 0.6) == pytest.approx(0.6)
    assert calibration.chance("mtp", (2,), 0.6) == pytest.approx(0.6)
    for _ in range(300):
        calibration.observe("lookup", (2,), True)
    assert calibration.chance("lookup", (2,), 0.6) > 0.7


def test_a_fine_feature_leans_on_the_coarse_one_until_it_knows_better():
    calibration = Calibration()
    for _ in range(100):
        calibration.observe("mtp", (5, 0), True)
    assert calibration.chance("mtp", (5, 3), 0.1) == pytest.approx(calibration.chance("mtp", (5,), 0.1))
    for _ in range(100):
        calibration.observe("mtp", (5, 3), False)
    assert calibration.chance("mtp", (5, 3), 0.1) < 0.1
    assert calibration.chance("mtp", (5, 0), 0.1) > 0.9


def test_a_sequence_has_its_own_bias():
    calibration = Calibration()
    this, other = Acceptance(calibration), Acceptance(calibration)

    def learn(accepted):
        this.observe("lookup", (), this.chance("lookup", (), 0.5), accepted)

    assert this.chance("lookup", (), 0.5) == 0.5
    for _ in range(40):
        learn(False)
    assert this.chance("lookup", (), 0.5) < 0.15
    assert this.chance("mtp", (), 0.5) == other.chance("lookup", (), 0.5) == 0.5
    for _ in range(400):
        learn(True)
    assert 0.9 < this.chance("lookup", (), 0.5) < 1.0
    assert this.chance("lookup", (), 0.0) == 0.0
    assert this.chance("lookup", (), 1.0) == 1.0


def test_the_best_pace_is_that_of_the_best_number_of_nodes():
    cost = VerifyCost([1, 4, 16], [1.0, 1.3, 4.0])
    draft = chain([0.9] * 8)
    rates = [(1 + sum(draft.path_probabilities()[:n])) / cost(1 + n) for n in range(9)]
    assert best_pace([draft], cost, 1, 99) == pytest.approx(max(rates))
    assert best_pace([draft], cost, 1, 2) == pytest.approx(max(rates[:3]))
    assert best_pace([Draft(), Draft()], cost, 2, 99) == pytest.approx(2 / cost(2))

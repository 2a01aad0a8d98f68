"""What is kept of sliding layers bounds how far a prompt has to go back."""

from __future__ import annotations

import pytest

from outrider.cache.checkpoints import EVERY, NEWEST, worth_keeping
from outrider.cache.node import Node
from outrider.cache.tree import Tree

PAGE, LENGTH = 128, 40_064


def kept(window: int, turns: tuple[int, ...] = (), branches: tuple[int, ...] = ()) -> list[Node[str]]:
    """The pages of a sequence of `LENGTH` positions; prompts ended at `turns`, others leave it behind pages."""
    path: list[Node[str]] = []
    for index in range(LENGTH // PAGE):
        turn = any(index * PAGE < at <= (index + 1) * PAGE for at in turns)
        node = Node(path[-1] if path else None, (index,), b"", ["full", "sliding"], turn=turn)
        if path:
            path[-1].children[node.rows] = node
        path.append(node)
    for index in branches:
        path[index].children[(-1,)] = Node(path[index], (-1,), b"", ["full", "sliding"])
    for index in range((LENGTH - window - NEWEST) // PAGE):
        if not worth_keeping(path, index, PAGE, window):
            path[index].pages[1] = None
    return path


def cost(path: list[Node[str]], window: int, length: int) -> int:
    """How many positions are computed again by a prompt that shares `length` positions."""
    tree: Tree[str] = Tree(PAGE, (0, window), (1, 1))
    return length - tree._resumable([node.pages for node in path], length, ())


@pytest.mark.parametrize("window", [16, 512, 1024])
def test_going_back_costs_little_in_what_is_new_and_4096_positions_before(window):
    path = kept(window)
    costs = {length: cost(path, window, length) for length in range(1, LENGTH, 61)}
    assert max(of for length, of in costs.items() if length >= LENGTH - NEWEST) == 0
    assert EVERY - window - PAGE < max(costs.values()) < EVERY
    assert sum(node.pages[1] is not None for node in path) * PAGE < NEWEST + 9 * (window + 2 * PAGE) + window


@pytest.mark.parametrize("turn", [5000, 5120, 5121, 20_000])
def test_the_start_of_a_turn_is_kept(turn):
    path = kept(512, turns=(turn,))
    assert cost(path, 512, turn) == 0
    assert cost(path, 512, turn - turn % PAGE) == 0, "a template may end the prompt otherwise"
    assert cost(kept(512), 512, turn) > 0


def test_what_is_new_to_a_branch_is_kept_for_it():
    branch = 10_000 // PAGE
    path = kept(512, branches=(branch,))
    assert all(cost(path, 512, length) == 0 for length in range((branch + 1) * PAGE - NEWEST, (branch + 1) * PAGE, 61))

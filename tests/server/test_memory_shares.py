"""How models divide the memory of a process: what they may come to need never adds up to more than there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.fit import Needs
from outrider.server.memory_shares import Shares

GIB = 1 << 30


def test_models_that_fit_together_leave_room_for_each_other():
    needs = Needs(weights=4 * GIB, cache=GIB, buffers=0)
    first = Shares.of(needs, 20 * GIB, [needs.total])
    assert first.kv_cache == int(0.8 * (20 - 4 - 5) / 2 * GIB)
    second = Shares.of(needs, 20 * GIB - needs.weights - first.kv_cache, [])
    assert second.kv_cache > first.kv_cache


def test_one_that_cannot_be_beside_the_others_takes_half_of_what_is_left():
    small, large = Needs(GIB, GIB, 0), Needs(30 * GIB, GIB, 0)
    assert Shares.of(small, 21 * GIB, [large.total]).kv_cache == 8 * GIB


@given(
    models=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), min_size=1, max_size=6),
    memory=st.integers(1, 100),
)
def test_shares_never_add_up_to_more_than_there_is(models, memory):
    """Models are loaded in their order, those that do not fit any more are not."""
    all_needs = [Needs(weights, cache, 0) for weights, cache in models]
    free = memory
    for number, needs in enumerate(all_needs):
        if needs.total > free:
            continue
        share = Shares.of(needs, free, [other.total for other in all_needs[number + 1 :]])
        assert share.prefix_cache <= share.kv_cache
        free -= needs.weights + share.kv_cache
        assert free >= 0

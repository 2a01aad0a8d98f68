"""A short run of `make fuzz`."""

from __future__ import annotations

import random

import pytest
from lossless import fuzz


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return fuzz.Models(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_000_000, 1_000_060))
def test_no_answer_depends_on_drafting(models, seed):
    _, _, problem = fuzz.fuzz_round(random.Random(seed), models, demo_share=0.1)
    assert problem is None

"""What a pass has to do, from shapes: the published sizes, and what experts leave unread."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_configs import PUBLISHED

from outrider.backends.cpu.weights import packed_bytes_per_weight
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.hf.config import hf_config
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.traffic import weight_traffic
from outrider.roofline.sizes import SIZES, published_size
from outrider.roofline.subject import checkpoint_subject, is_size, sized_subject
from outrider.roofline.work import Matrix, Work, drafter_work, target_work


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_that_are_published(size):
    """The shapes that ship against config.json as the hub has it, of target and drafter."""
    found = published_size(size.lower(), "Q4_0")
    for config, name in ((found.config, f"gemma-4-{size}-it"), (found.drafter_config, f"gemma-4-{size}-it-assistant")):
        theirs = hf_config(Settings(PUBLISHED[name][0], Path(name)), Settings({}, Path(name)))
        described, own = vars(theirs) | {"end_token_ids": None}, vars(config) | {"end_token_ids": None}
        if "text" in described:
            described["text"], own["text"] = (
                vars(config["text"]) | {"end_token_ids": None} for config in (described, own)
            )
        assert own == described


@pytest.mark.parametrize(("size", "billions"), [("E2B", 2.3), ("E4B", 4.6), ("12B", 11.9), ("31B", 30.7)])
def test_a_pass_sweeps_over_the_weights_that_the_name_counts(size, billions):
    """Per-layer embeddings apart, of which only rows are read: that is what the E of E2B stands for."""
    found = published_size(size, "BF16")
    work = target_work(found.tensors, found.config)
    assert sum(matrix.weights for matrix in work.matrices) == pytest.approx(billions * 1e9, rel=0.03)
    assert work.bytes_per_token == 2 * sum(matrix.weights for matrix in work.matrices)


def test_a_token_of_the_mixture_reads_a_few_billions_of_its_weights():
    found = published_size("26B-A4B", "BF16")
    work = target_work(found.tensors, found.config)
    assert sum(matrix.weights for matrix in work.matrices) == pytest.approx(25.2e9, rel=0.03)
    assert work.bytes_per_token / 2 == pytest.approx(3.8e9, rel=0.03)


def test_bytes_are_those_of_the_checkpoint(tiny):
    """Q4_0 and dense weights do not grow when they are packed."""
    for variant in ("gemma4-e2b", "gemma4-moe"):
        checkpoint = open_checkpoint(tiny(variant).folder)
        work = target_work(checkpoint.tensors, checkpoint.config)
        expected = weight_traffic(checkpoint.tensors, checkpoint.config).per_token
        assert work.bytes_per_token == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("format", "bits"),
    [("Q4_0", 4.5), ("Q4_K", 4.625), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("F32", 32), ("I2", 2.015625)],
)
def test_packed_weights_have_the_bits_that_packing_says(format, bits):
    assert 8 * packed_bytes_per_weight(format) == bits


@given(st.integers(2, 16), st.integers(1, 5), st.integers(1, 12), st.integers(0, 99))
def test_touched_is_what_random_choices_touch(count, chosen, rows, seed):
    chosen = min(chosen, count)
    matrix, rng, draws = Matrix("F32", 1000, 4000, chosen, count), random.Random(seed), 400
    seen = [len({part for _ in range(rows) for part in rng.sample(range(count), chosen)}) for _ in range(draws)]
    # Five standard deviations of the mean, each draw between `chosen` and `count`.
    assert matrix.touched(rows) * count == pytest.approx(sum(seen) / draws, abs=5 * count / 2 / math.sqrt(draws))
    assert matrix.touched(1) == pytest.approx(chosen / count)


def test_a_drafter_reads_the_keys_and_values_of_its_target():
    found = published_size("31B", "Q4_0")
    work = drafter_work(found.drafter_tensors, found.drafter_config, found.config)
    assert [layer.kv_heads for layer in work.attentions] == [16, 16, 16, 4]
    assert [layer.window for layer in work.attentions] == [1024, 1024, 1024, 0]
    assert {layer.heads for layer in work.attentions} == {32}


def test_a_clustered_head_is_read_in_part():
    found = published_size("E2B", "Q4_0")
    work = drafter_work(found.drafter_tensors, found.drafter_config, found.config)
    assert [(m.chosen, m.count) for m in work.matrices if m.count > 1] == [(32, 2048)]


def test_a_size_and_a_checkpoint_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_size("e2b")
    assert is_size("26B-A4B")
    assert not is_size("demo")
    (tmp_path / "e2b").mkdir()
    assert not is_size("e2b")


def test_a_checkpoint_without_a_drafter_is_planned_with_lookup(tiny):
    path = str(tiny("gemma4-e2b").gguf)
    subject = checkpoint_subject(path, "off")
    assert subject.drafter is None
    assert "lookup" in subject.drafted_by
    assert sized_subject("e2b", "Q8_0").target.main_format == "Q8_0"


def test_the_main_format_is_the_one_of_which_a_row_reads_the_most():
    experts = Matrix("Q8_0", 1000, 1000, chosen=1, count=10)  # of which a row reads 100 bytes
    work = Work((Matrix("F16", 45, 90), Matrix("F16", 45, 90), Matrix("Q4_0", 400, 200), experts), (), 4)
    assert work.main_format == "Q4_0"

"""A run of `outrider train-drafter` from start to end: what it reports, what it leaves, how it continues."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import inf

import pytest
from command_line import call
from tiny_checkpoints import make_assistant, save_folder

from outrider import LLM
from outrider.checkpoints import open_checkpoint
from outrider.errors import OutriderError, UsageError
from outrider.train import recipe as recipes
from outrider.train.dataset import Dataset
from outrider.train.model import DrafterShape
from outrider.train.progress import RunProgress
from outrider.train.report import plot_curve
from outrider.train.trainer import Settings

__all__ = ["call"]

SHAPE = DrafterShape(hidden=32, mlp=64, layers=3, heads=4, clusters=16, top_clusters=6)


@pytest.fixture
def recipe(tiny, tmp_path, monkeypatch):
    """A short run."""
    llm = LLM(tiny("gemma4-e2b").gguf, threads=1, context=256)
    monkeypatch.setattr(recipes, "LLM", lambda *_, **__: llm)
    monkeypatch.setattr(llm.tokenizer, "encode", lambda text: [2, *(3 + ord(c) % 400 for c in text)])
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One.\n\nTwo.\n")
    return recipes.Recipe(
        str(llm.path),
        tmp_path / "out",
        prompts,
        tokens=2500,
        minutes=0.5,
        shape=SHAPE,
        settings=Settings(steps=2, rows=200, negatives=100, total_steps=12),
        threads=1,
    )


def test_the_whole_recipe_and_its_second_run(recipe, tiny, tmp_path):
    reported: list[tuple[str, float]] = []
    lines: list[str] = []

    def run(of):
        reported.clear()
        lines.clear()
        return recipes.make_drafter(of, lambda stage, share, _: reported.append((stage, share)), lines.append)

    kept = replace(recipe, keep_checkpoint=True)
    facts = run(kept)
    assert {"capturing", "loading", "training", "ordering the head", "done"} <= {stage for stage, _ in reported}
    shares = [share for _, share in reported]
    assert shares == sorted(shares)  # one bar for the whole, which never goes back
    assert (shares[0] < 0.5, shares[-1], reported[-1][0]) == (True, 1.0, "done")
    assert max(share for stage, share in reported if stage != "done") < 1
    assert facts["tokens"] >= 2500
    assert facts["held_out"]["step"] == 12
    assert facts["provenance"]["prompts"] == "prompts.txt"
    out, checkpoint = recipe.out, recipe.out / "training" / "checkpoint.pt"
    data = Dataset(out / "data")
    assert f"data: {out}/data, some {2500 * data.shapes.row_bytes / 1e6:,.0f} MB, kept" in lines
    rows = len(data.fields["tokens"])
    assert sum(file.stat().st_size for file in (out / "data").glob("*.bin")) == rows * data.shapes.row_bytes
    assert f"checkpoint: {checkpoint}, {checkpoint.stat().st_size / 1e6:,.0f} MB, kept" in lines
    assert any("training ended at step 12, within its warm-up of 100" in line for line in lines)
    assert (out / "curve.png").stat().st_size > 1000
    assert "held-out acceptance" in (out / "drafter" / "README.md").read_text()
    assert json.loads((out / "drafter" / "training.json").read_text())["head"]["clusters"] == SHAPE.clusters
    again = run(recipe)
    assert {stage for stage, _ in reported} == {"loading", "ordering the head", "writing the drafter", "done"}
    assert again["held_out"]["acceptance"] == pytest.approx(facts["held_out"]["acceptance"])
    assert any("removed at the end unless --keep-checkpoint" in line for line in lines)
    assert not checkpoint.exists()
    assert run(recipe) == json.loads(json.dumps(again))  # nothing is left to do
    assert reported == []
    assert "drafter.gguf is finished" in lines[0]
    with pytest.raises(UsageError, match=r"holds a drafter of gemma4-e2b.gguf: use another folder"):
        run(replace(recipe, model=str(tiny("gemma3").gguf)))
    # Adapting: from what was made, on the same data, the first figures are the last ones of before.
    adapted = run(replace(recipe, out=tmp_path / "adapted", minutes=0.0, start=str(out / "drafter.gguf")))
    assert adapted["held_out"]["step"] == 0
    assert adapted["head"]["clusters"] == SHAPE.clusters


def test_a_dense_drafter_is_adapted_and_stays_dense(recipe, tiny, tmp_path):
    start = tmp_path / "start"
    save_folder(make_assistant(tiny("gemma4-e2b").model.config, ordered=False), start)
    dense = replace(recipe, start=str(start), minutes=0.0, out=tmp_path / "dense")
    assert recipes.make_drafter(dense)["head"] == {}
    assert not open_checkpoint(dense.out / "drafter.gguf").config.use_ordered_embeddings
    assert "| clusters | none |" in (dense.out / "drafter" / "README.md").read_text()


def test_an_interrupted_training_continues_where_it_stopped(recipe):
    def interrupt(_stage, _share, figures):
        if figures.startswith("step 5,"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipes.make_drafter(recipe, interrupt)
    steps = []
    facts = recipes.make_drafter(recipe, lambda _stage, _share, figures: steps.append(figures))
    assert next(of for of in steps if of.startswith("step")).startswith("step 6,")
    assert facts["held_out"]["step"] == 12


def test_what_cannot_be_trained_is_refused_before_anything_is_captured(recipe, tiny, monkeypatch):
    monkeypatch.setattr(recipes, "LLM", None)
    for change, message in (
        ({"model": str(tiny("assistant-dense").gguf)}, "is a drafter, not a model"),
        ({"start": str(tiny("gemma3").gguf)}, "is a model, not a drafter"),
        ({"prompts": recipe.out / "missing.txt"}, "cannot read prompts"),
    ):
        with pytest.raises(OutriderError, match=message):
            recipes.make_drafter(replace(recipe, **change))
    for name in ("hidden", "mlp"):
        with pytest.raises(UsageError, match=r"must be a multiple of 32, the block of its weights, not 48"):
            DrafterShape(**{name: 48})


@pytest.mark.parametrize(
    ("tokens", "minutes", "warned"),
    [(500_000, 60.0, False), (90_000, 7.0, False), (1000, 60.0, True), (500_000, 1.0, True)],
)
def test_a_run_too_short_to_learn_from_is_warned_of(recipe, tokens, minutes, warned):
    assert (replace(recipe, tokens=tokens, minutes=minutes).too_little is not None) == warned


def test_the_share_done_is_that_of_the_time_and_never_falls():
    now, shares = iter([0.0, 0.0, 10.0, 20.0, 30.0, 40.0]), []
    progress = RunProgress(lambda _stage, share, _figures: shares.append(share), clock=lambda: next(now))
    for left in (inf, 30.0, 80.0, 30.0, 0.0):  # unknown at first, then it turns out to take longer
        progress("training", left)
    assert shares == [0.0, 0.25, 0.25, 0.5, 1.0]


def test_every_evaluation_is_a_point_of_the_plot(tmp_path):
    """A line alone is invisible where there is one evaluation."""
    drawn = []
    for points in (1, 2):
        curve = [{"step": 200 * (i + 1), "loss": 2.0, "acceptance": [0.5, 0.25]} for i in range(points)]
        plot_curve(curve, tmp_path / "curve.svg")
        lines = re.findall(r'<g clip-path="[^"]*">(.*?)</g>', (tmp_path / "curve.svg").read_text(), re.DOTALL)
        drawn.append(sum(line.count("<use") for line in lines))
    assert drawn == [3, 6]  # a loss, and two depths


def test_ctrl_c_is_answered_with_how_to_continue(call, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "make_drafter", interrupted)
    ran = call("train-drafter", "demo", "--out", str(tmp_path))
    assert (ran.code, ran.out) == (130, "")
    assert "stopped; the same command continues" in ran.err


def test_the_command_prints_what_was_made(call, monkeypatch, tmp_path):
    def made(recipe, report, announce):
        announce(f"warning: {recipe.too_little}")
        report("done", 1.0, "")
        return {"held_out": {"acceptance": [0.5, 0.25]}}

    monkeypatch.setattr(recipes, "make_drafter", made)
    ran = call("train-drafter", "demo", "--out", str(tmp_path), "--tokens", "1000", "--minutes", "1")
    assert (ran.code, ran.out) == (0, f"{tmp_path}/drafter.gguf\n")
    assert "warning: 1,000 tokens and 1 minutes are too little" in ran.err
    assert "Held-out acceptance rate by depth: 50%, 25%." in ran.err

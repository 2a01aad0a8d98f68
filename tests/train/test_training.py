"""From a tiny target's own texts to a drafter that both transformers and the engine read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from native_model import NativeModel
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.assembly import cpu_drafter
from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.config import last_kv_layers
from outrider.errors import UsageError
from outrider.models.gemma import kv_numbers
from outrider.quant import WeightStore
from outrider.train.batches import Batches
from outrider.train.capture import Job, capture
from outrider.train.clusters import order_tokens, recall, train_centroids
from outrider.train.dataset import Dataset, DatasetWriter, Shapes
from outrider.train.export import export_folder, export_gguf
from outrider.train.model import Drafter, DrafterShape, assistant_config, start_near
from outrider.train.prompts import endless_jobs, read_prompts, shipped_openings
from outrider.train.start import samples_of
from outrider.train.trainer import Settings, Trainer

SHAPE = DrafterShape(hidden=32, mlp=64, layers=3, heads=4, clusters=16, top_clusters=6)
VARIANTS = ["gemma3", "gemma4-e2b", "gemma4-k-eq-v"]


@pytest.fixture(scope="module")
def captured(tiny, tmp_path_factory):
    """Variant -> (LLM, folder of its data)."""
    made = {}

    def get(variant):
        if variant not in made:
            llm = LLM(tiny(variant).gguf, threads=2, context=256)
            rng = np.random.default_rng(0)
            folder = tmp_path_factory.mktemp("data") / variant
            jobs = [
                Job([int(t) for t in rng.integers(3, VOCAB, 1 + i % 5)], params)
                for i in range(24)
                for params in [SamplingParams(max_tokens=30, temperature=0.5 * (i % 2), seed=i, ignore_end=True)]
            ]
            assert capture(llm, jobs, folder, provenance={"target": variant}, batch=5) == 24 * 30
            made[variant] = llm, folder
        return made[variant]

    return get


def drafter_for(llm, folder, seed=0):
    torch.manual_seed(seed)
    tensor = open_checkpoint(llm.path).tensors["embed_tokens.weight"]
    embedding = cpu.dequantize(tensor.format, *tensor.shape, tensor.data)
    drafter = Drafter(assistant_config(llm.config, SHAPE), torch.from_numpy(embedding), torch.arange(VOCAB))
    start_near(drafter, embedding, embedding, samples_of(Dataset(folder), VOCAB))
    return drafter


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_captured_is_what_the_target_computes(captured, variant):
    llm, folder = captured(variant)
    data = Dataset(folder)
    model = NativeModel(llm.path, kv_format="int8")  # as an LLM by default
    kinds = last_kv_layers(llm.config)
    for span in data.spans[:6]:
        rows = slice(span.start, span.start + span.length)
        tokens = data.fields["tokens"][rows].tolist()
        cache = model.cache()
        logits, hidden = model.run(cache, tokens[:-1], commit=range(len(tokens) - 1))
        first = span.prompt_length - 1
        assert np.array_equal(data.fields["hidden"][rows][first:-1], hidden[first:].astype(np.float16))
        for kind, layer in kinds.items():
            keys, values = cache.read(kv_numbers(llm.config)[layer], 0, len(tokens) - 1)
            both = np.concatenate([keys.reshape(len(keys), -1), values.reshape(len(values), -1)], 1)
            assert np.array_equal(data.fields[kind][rows][:-1], both.astype(np.float16))
            assert not data.fields[kind][rows][-1].any()
        places = data.fields["top_tokens"][rows][span.prompt_length :]
        assert np.array_equal(places[:, 0], logits[first:].argmax(-1))
        if span.greedy:
            assert np.array_equal(places[:, 0], tokens[span.prompt_length :])
        expected = torch.log_softmax(torch.from_numpy(logits[first:]).double(), -1).sort(descending=True).values[:, :20]
        assert np.allclose(data.fields["top_logprobs"][rows][span.prompt_length :], expected, atol=2e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_lowers_the_loss_and_goes_on_where_it_stopped(captured, variant, tmp_path):
    llm, folder = captured(variant)
    data = Dataset(folder)
    settings = Settings(steps=2, rows=150, negatives=100, total_steps=60, warm_up=5, rate=5e-3)

    def trainer(name):
        return Trainer(drafter_for(llm, folder), data, Batches(data, llm.config, 2), tmp_path / name, settings)

    whole = trainer("whole")
    before = whole.evaluate(whole.training)
    losses = [whole.train_step()["loss"] for _ in range(30)]
    after = whole.evaluate(whole.training)
    assert after["loss"] < 0.9 * before["loss"]
    assert after["acceptance"][0] > before["acceptance"][0]
    part = trainer("part")
    for _ in range(10):
        part.train_step()
    part.save()
    again = trainer("part")
    assert again.step == 10
    # Bit for bit the same weights, optimizer and order of batches; sums of threads may round differently.
    assert again.train_step()["loss"] == pytest.approx(losses[10], rel=0.2)


def test_a_drafter_starts_nearer_its_target_than_noise(captured, tmp_path):
    """On a target whose next token follows from the last, the best linear drafter is already of use."""
    llm, folder = captured("gemma3")
    data = Dataset(folder)
    started = drafter_for(llm, folder)
    noise = Drafter(started.assistant.config, started._embedding, torch.arange(VOCAB))
    losses = []
    for number, drafter in enumerate((started, noise)):
        trainer = Trainer(drafter, data, Batches(data, llm.config, 2), tmp_path / str(number), Settings(steps=2))
        losses.append(trainer.evaluate(trainer.training)["loss"])
    assert losses[0] < losses[1] - 0.1


def test_the_rate_falls_to_the_end_of_the_time_as_of_the_steps(captured, tmp_path):
    llm, folder = captured("gemma3")
    data = Dataset(folder)
    settings = Settings(steps=2, rows=150, negatives=100, total_steps=100_000, warm_up=1)
    trainer = Trainer(drafter_for(llm, folder), data, Batches(data, llm.config, 2), tmp_path, settings)
    trainer.run(0.5)
    assert 0 < trainer.step < 1000
    assert trainer.spent >= 0.5
    assert trainer._rate() == pytest.approx(settings.rate / 10)
    again = Trainer(drafter_for(llm, folder), data, Batches(data, llm.config, 2), tmp_path, settings)
    again.run(0.5)
    assert again.step == trainer.step  # its time was used up before it was stopped
    again.run(trainer.spent + 0.2)
    assert again.step > trainer.step


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_an_export_drafts_in_the_engine_what_it_drafts_in_transformers(captured, variant, form, tmp_path):
    llm, folder = captured(variant)
    drafter = drafter_for(llm, folder)
    data = Dataset(folder)
    batches = Batches(data, llm.config, 2)
    assistant = drafter.assistant
    ordering = order_tokens(drafter.head().numpy(), np.arange(VOCAB)[::-1].astype(float), SHAPE.clusters)
    with torch.no_grad():
        assistant.masked_embedding.token_ordering.copy_(torch.from_numpy(ordering))
        head = drafter.head()[torch.from_numpy(ordering)].view(SHAPE.clusters, -1, SHAPE.hidden)
        assistant.masked_embedding.centroids.weight.copy_(head.mean(1))
    if form == "folder":
        path = tmp_path / "drafter"
        export_folder(assistant, path)
        reference = transformers.Gemma4AssistantForCausalLM.from_pretrained(path).float()
    else:
        path, reference = tmp_path / "drafter.gguf", assistant
        export_gguf(assistant, path, lambda _: __import__("gguf").GGMLQuantizationType.F32)
    checkpoint = open_checkpoint(path)
    model = NativeModel(llm.path)
    pool = cpu.ThreadPool(1)
    store, target = WeightStore(checkpoint.tensors, pool), WeightStore(open_checkpoint(llm.path).tensors, pool)
    drafting = cpu_drafter(llm.config, target, checkpoint.config, store, pool, max_rows=2, kv_format="float16")
    embedding = drafter._embedding
    one, equal = np.zeros(1, np.int32), 0
    for span in data.spans[:10]:
        batch = batches.make([span])
        at = 7  # the round that starts after so many places
        tokens = data.fields["tokens"][span.start : span.start + span.prompt_length + at].tolist()
        cache = model.cache()
        _, hidden = model.run(cache, tokens, commit=range(len(tokens)))
        said = int(batch.tokens[0, at + 1])
        drafting.program.write(drafting.hidden, hidden[-1:])
        drafting.program.run(np.array([said], np.int32), one, one - 1, one[:0], [cache], None)
        clusters = drafting.program.chosen(1, drafting.top_k)[0]
        ours = drafting.program.read(drafting.logits, drafting.top_k).reshape(-1)
        best = int(drafting.ordering[clusters].reshape(-1)[ours.argmax()])
        keys = {kind: (k[:, :, : len(tokens)], v[:, :, : len(tokens)]) for kind, (k, v) in batch.kv.items()}
        state = torch.from_numpy(hidden[-1:])[None]
        inputs = torch.cat([embedding[said][None, None] * drafter._scale, state], -1)
        with torch.no_grad():
            out = reference(inputs_embeds=inputs, position_ids=torch.tensor([[len(tokens)]]), shared_kv_states=keys)
        equal += best == int(out.logits[0, -1].argmax())
        theirs = out.last_hidden_state[0, -1].numpy()
        mine = drafting.program.read(drafting.hidden, 1)[0]
        assert np.allclose(mine, theirs, atol=2e-2 * np.abs(theirs).max())
        # And training sees the same state there.
        with torch.no_grad():
            _, after = drafter.step(
                batch.tokens[:, 1 : 1 + batch.state.shape[1]], batch.state, batch.positions, batch.kv, batch.mask
            )
        assert np.allclose(after[0, at].numpy(), theirs, atol=3e-2 * np.abs(theirs).max())
    assert equal >= 9  # two near the top may change places by rounding


def test_an_exported_drafter_changes_nothing_but_the_passes(captured, tmp_path):
    llm, folder = captured("gemma3")
    drafter = drafter_for(llm, folder)
    ordering = order_tokens(drafter.head().numpy(), np.ones(VOCAB), SHAPE.clusters)
    drafter.assistant.masked_embedding.token_ordering.copy_(torch.from_numpy(ordering))
    export_gguf(drafter.assistant, tmp_path / "drafter.gguf")
    drafting = LLM(llm.path, drafter=tmp_path / "drafter.gguf", threads=2, context=256, lookup=False)
    params = SamplingParams(max_tokens=20, ignore_end=True, draft=3)
    out = drafting.generate([[5, 6, 7]], params)[0]
    assert (
        out.token_ids
        == llm.generate([[5, 6, 7]], SamplingParams(max_tokens=20, ignore_end=True, draft="off"))[0].token_ids
    )
    assert out.stats.drafted_by_source["mtp"] > 10


def test_centroids_learn_to_find_the_cluster():
    torch.manual_seed(0)
    head = torch.randn(256, 16)
    ordering = order_tokens(head.numpy(), np.ones(256), 16)
    assert sorted(ordering.tolist()) == list(range(256))
    cluster = torch.empty(256, dtype=torch.long)
    cluster[torch.from_numpy(ordering)] = torch.arange(16).repeat_interleave(16)
    said = torch.randint(0, 256, (4000,))
    states = head[said] + 0.3 * torch.randn(4000, 16)
    start = head[torch.from_numpy(ordering)].view(16, 16, 16).mean(1)
    learnt = train_centroids(states, cluster[said], start, epochs=10, batch=500)
    assert recall(states, cluster[said], learnt, 4) > max(recall(states, cluster[said], start, 4), 0.8)


def test_a_folder_of_another_target_is_refused_and_a_cut_off_tail_ignored(tmp_path):
    shapes = Shapes(4, 8, 8, 2)
    rows = {n: np.zeros((5, *s), d) for n, (d, s) in shapes.fields().items()}
    writer = DatasetWriter(tmp_path, shapes, {"target": "a"})
    writer.append(rows, 2, True)
    writer.close()
    with (tmp_path / "hidden.bin").open("ab") as file:
        file.write(b"half a row")
    with (tmp_path / "sequences.jsonl").open("a") as file:
        file.write('{"start": 5, "len')
    with pytest.raises(UsageError, match="another target"):
        DatasetWriter(tmp_path, shapes, {"target": "b"})
    again = DatasetWriter(tmp_path, shapes, {"target": "a"})
    rows["hidden"] += 1
    again.append(rows, 3, False)
    again.close()
    data = Dataset(tmp_path)
    assert [(s.start, s.length, s.prompt_length, s.greedy) for s in data.spans] == [(0, 5, 2, True), (5, 5, 3, False)]
    assert data.fields["hidden"][5:].min() == 1
    with pytest.raises(UsageError, match="holds no captured data"):
        Dataset(tmp_path / "nowhere")


def test_prompts_are_read_and_bad_ones_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Once"}\n\n{"prompt": "Twice"}\n')
    (tmp_path / "a.txt").write_text("First\nline.\n\nSecond.\n\n\n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Once"}\n{"text": 3}\n')
    (tmp_path / "empty.txt").write_text("\n\n")
    assert read_prompts(tmp_path / "a.jsonl") == ["Once", "Twice"]
    assert read_prompts(tmp_path / "a.txt") == ["First\nline.", "Second."]
    with pytest.raises(UsageError, match=r"bad.jsonl, line 2: expected an object"):
        read_prompts(tmp_path / "bad.jsonl")
    with pytest.raises(UsageError, match="holds no prompts"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(UsageError, match="cannot read prompts from"):
        read_prompts(tmp_path / "missing.txt")


def test_shipped_openings_are_none_of_the_benchmarks():
    from outrider.bench.agent_prompts import AGENT_CATEGORIES
    from outrider.bench.prompt import PromptFormat
    from outrider.bench.suite import CATEGORIES, shipped_prompts

    openings = [opening for opening in shipped_openings() if opening]
    assert len(openings) > 100
    for form in PromptFormat.base, PromptFormat.chat:
        for prompt in shipped_prompts(categories=(*CATEGORIES, *AGENT_CATEGORIES), prompt_format=form):
            said = [prompt.text, *(message.content for message in prompt.messages)]
            assert not [opening for opening in openings for text in said if len(opening) > 12 and opening in text]


def test_greedy_jobs_go_on_from_sampled_texts(captured):
    llm, folder = captured("gemma3")
    llm.tokenizer.encode = lambda text: [2, *(3 + ord(c) % 400 for c in text)]  # type: ignore[method-assign]
    jobs = endless_jobs(["abc"], llm.tokenizer, folder, seed=1)
    first = [next(jobs) for _ in range(8)]
    assert {job.params.greedy for job in first} == {True, False}
    listed = [json.loads(line) for line in (folder / "sequences.jsonl").read_text().splitlines()]
    tokens = Dataset(folder).fields["tokens"]
    beginnings = [tokens[s["start"] : s["start"] + s["length"]].tolist() for s in listed if not s["greedy"]]
    for job in first:
        if job.params.greedy:
            assert any(text[: len(job.prompt)] == job.prompt for text in beginnings)


def test_too_few_texts_and_a_checkpoint_of_another_drafter_are_refused(captured, tmp_path):
    llm, folder = captured("gemma3")
    data, drafter = Dataset(folder), drafter_for(llm, folder)
    with pytest.raises(UsageError, match=r"0 of the texts are long enough to train on, and two are needed"):
        Trainer(drafter, data, Batches(data, llm.config, 40), tmp_path, Settings(steps=40))
    Trainer(drafter, data, Batches(data, llm.config, 2), tmp_path, Settings(steps=2)).save()
    other = Drafter(assistant_config(llm.config, replace(SHAPE, mlp=96)), drafter._embedding, torch.arange(VOCAB))
    with pytest.raises(UsageError, match=r"checkpoint.pt is of another shape or of less data: remove it"):
        Trainer(other, data, Batches(data, llm.config, 2), tmp_path, Settings(steps=2))

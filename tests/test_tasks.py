"""The calls of a pass divide among 64 threads, at the widths of Gemma 4 E2B and of 26B-A4B's experts."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.backends import cpu
from outrider.backends.cpu.weights import any_weights

THREADS = 64
SMALL = 16 << 10
"""Bytes of weights of a tile that take no longer to read than threads take to meet: a call of fewer such tiles than
threads is not worth dividing, and its sums cannot be."""


def run(program, rows=1):
    """One pass; by kind of call the tasks of each that ran on its own."""
    zeros, parents = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
    outputs = np.arange(rows, dtype=np.int32) if program.describe()[-1] == "head" else zeros[:0]
    program.run(zeros, zeros, parents, outputs, [cpu.KvCache(cpu.KvPages([], "float16"), 64, 64)], None)
    found: dict[str, list[int]] = {}
    for kind, tasks in zip(program.describe(), program.tasks, strict=True):
        if tasks:
            found.setdefault(kind, []).append(tasks)
    return found


@pytest.fixture
def pool():
    return cpu.ThreadPool(THREADS)


def started(pool, hidden, rows=1):
    program = cpu.Program(rows, [], "float16", pool)
    x = program.buffer("x", hidden)
    program.gather(cpu.table("F32", 1, hidden, np.ones(hidden, np.float32).view(np.uint8)), 1.0, x)
    return program, x


def test_matrices_of_e2b(pool):
    program, x = started(pool, 1536)
    q, k, v, y = (program.buffer(name, width) for name, width in (("q", 2048), ("k", 256), ("v", 256), ("y", 1536)))
    gated, small = program.buffer("gated", 6144), program.buffer("small", 256)

    def weights(rows, columns):
        return any_weights("Q4_0", rows, columns, pool)

    program.linear(x, [weights(2048, 1536), weights(256, 1536), weights(256, 1536)], [q, k, v])
    program.linear(q, [weights(1536, 2048)], [y])
    program.gated_linear(y, weights(6144, 1536), weights(6144, 1536), gated)
    program.linear(gated, [weights(1536, 6144)], [y])
    program.linear(y, [weights(256, 1536)], [small])
    program.keep_outputs([x])
    program.head(x, weights(32_768, 1536), 30.0)
    found = run(program)
    *matrices, per_layer = found["linear"]
    assert min(*matrices, *found["gated_linear"], *found["head"]) >= THREADS
    assert per_layer == 256 // 16
    assert SMALL >= 16 * 1536 * 4.5 / 8


def test_chosen_experts_alone_are_divided(pool):
    hidden, width, experts, top_k = 2816, 704, 16, 8
    program, x = started(pool, hidden)
    scores, share = program.buffer("scores", experts), program.buffer("share", top_k)
    gated, parts = program.buffer("gated", width, top_k), program.buffer("parts", hidden, top_k)
    program.linear(x, [any_weights("F32", experts, hidden, pool)], [scores])
    program.route(scores, top_k, np.ones(experts, np.float32), share)
    blocks = np.zeros(experts * 2 * width * hidden * 18 // 32, np.uint8)
    gate_up = cpu.pack("Q4_0", 2 * width, hidden, blocks, pool, count=experts)
    down = cpu.pack("Q4_0", hidden, width, blocks[: blocks.size // 2], pool, count=experts)
    program.expert_gated_linear(x, top_k, gate_up, gated)
    program.expert_linear(gated, top_k, down, parts)
    found = run(program)
    assert found["expert_gated_linear"] == [top_k * width // 16]
    assert found["expert_linear"] == [top_k * hidden // 16]
    assert min(found["expert_gated_linear"] + found["expert_linear"]) >= THREADS


def test_calls_on_one_row_run_together_and_divide_by_rows_and_heads(pool):
    rows, heads, head_dim = 8, 8, 256
    program, x = started(pool, heads * head_dim, rows)
    y, table = program.buffer("y", heads * head_dim), program.buffer("table", head_dim)
    program.rope_table(np.ones(head_dim // 2, np.float32), table)
    program.linear(x, [any_weights("Q4_0", heads * head_dim, heads * head_dim, pool)], [y])
    program.head_norm(y, np.ones(head_dim, np.float32), 1e-6, heads, head_dim, y)
    program.rope(y, table, heads, head_dim, 1.0)
    program.linear(y, [any_weights("F32", heads * head_dim, heads * head_dim, pool)], [x])
    program.rms_norm(x, None, 1e-6, y)
    program.add(y, x)
    found = run(program, rows)
    assert found["gather"] == [rows]  # with the rope table
    assert found["head_norm"] == [rows * heads]  # with the rope
    assert found["rms_norm"] == [rows]  # with the sum: a norm needs its whole row
    assert not {"rope_table", "rope", "add"} & found.keys()

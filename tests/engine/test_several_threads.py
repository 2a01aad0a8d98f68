"""One model used from several threads at once, as handlers of Flask, Gradio or FastAPI do, and in a forked child."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
from idle import wait_until_idle
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.engine import driver
from outrider.errors import OutriderError
from outrider.models.gemma import kv_layers
from outrider.server.scheduler import Scheduler


@pytest.fixture(scope="module")
def llm(tiny, word_tokenizer):
    made = LLM(tiny("gemma4-e2b").gguf, threads=2, context=256, prefix_cache_bytes=4 << 20)
    word_tokenizer(made)
    return made


def request(number: int) -> tuple[list[int], SamplingParams]:
    """One of many different requests: prompts that repeat themselves, so that lookup drafts, greedy and sampled."""
    rng = np.random.default_rng(number)
    motif = [int(token) for token in rng.integers(3, VOCAB, 3 + number % 9)]
    params = SamplingParams(
        max_tokens=8 + number % 33, temperature=(number % 3) * 0.6, seed=number, ignore_end=True, logprobs=number % 2
    )
    return (motif * 5)[: 6 + number % 40], params


def answer_of(llm: LLM, number: int) -> tuple[object, ...]:
    prompt, params = request(number)
    out = llm.generate([prompt], params)[0]
    return out.token_ids, out.text, out.finish_reason, out.logprobs


def in_threads(work: Callable[[int], object], count: int) -> list[object]:
    """`work(0)`, `work(1)`, ... in threads that begin together."""
    together = threading.Barrier(count)

    def begin(number: int) -> object:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count), timeout=120))


def test_answers_are_those_of_each_call_alone(llm):
    alone = [answer_of(llm, number) for number in range(16)]
    for _ in range(3):
        assert in_threads(lambda number: answer_of(llm, number), 16) == alone


def test_calls_share_passes(llm, monkeypatch):
    passes = 0
    run = llm.parts.target.run

    def counted(*args, **kwargs):
        nonlocal passes
        passes += 1
        return run(*args, **kwargs)

    monkeypatch.setattr(llm.parts.target, "run", counted)
    params = SamplingParams(max_tokens=60, draft="off", ignore_end=True)
    llm.generate([[5, 6, 7]], params)
    longest, passes = passes, 0
    in_threads(lambda number: llm.generate([[5 + number, 6, 7]], params), 8)
    assert passes <= 1.5 * longest


def test_streams_and_cancels_at_random(llm):
    """Sixteen threads that generate, stream to the end, or leave a stream where they please."""
    expected = {number: answer_of(llm, number)[0] for number in range(24)}

    def client(thread: int) -> int:
        rng, left = random.Random(thread), 0
        for _ in range(6):
            number = rng.randrange(24)
            prompt, params = request(number)
            if rng.random() < 0.3:
                assert answer_of(llm, number)[0] == expected[number]
                continue
            leave_after, tokens = rng.choice([None, 0, 1, 4]), []
            stream = llm.stream(prompt, params)
            for count, piece in enumerate(stream):
                tokens += piece.token_ids
                assert len(piece.token_ids) == len(piece.sources) == len(piece.rejected)
                if count == leave_after:
                    stream.close()
                    left += 1
                    break
            else:
                assert tuple(tokens) == expected[number]
            assert tuple(tokens) == expected[number][: len(tokens)]
        return left

    assert sum(in_threads(client, 16)) > 0
    wait_until_idle(llm)


def test_an_interrupt_at_any_moment_leaves_the_model_whole(llm):
    """Ctrl-C in the main thread, while another thread goes on."""
    expected, stop, others = answer_of(llm, 5), threading.Event(), []

    def go_on() -> None:
        while not stop.is_set():
            others.append(answer_of(llm, 3))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    rng, interrupted = random.Random(1), 0
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for _ in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 0.02))
                while True:
                    answer_of(llm, 5)
                    llm.score([[5, 6, 7, 8] * 40])
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
        thread.join(60)
    assert interrupted == 60
    assert not thread.is_alive()
    assert len(set(others)) == 1
    assert answer_of(llm, 5) == expected
    wait_until_idle(llm)


@pytest.mark.parametrize("nth", range(3))
def test_scoring_interrupted_while_it_waits_frees_its_sequence(llm, monkeypatch, nth):
    """The caller's wait breaks off; the sequence that the driver has opened is closed all the same."""
    waits = 0

    def breaking_off(*args: object) -> object:
        nonlocal waits
        waits += 1
        if waits == 1:
            time.sleep(0.01 * nth)  # before the first pass, or within
            raise KeyboardInterrupt
        return awaited(*args)

    awaited = driver._awaited
    monkeypatch.setattr(driver, "_awaited", breaking_off)
    with pytest.raises(KeyboardInterrupt):
        llm.score([[5, 6, 7, 8] * 60])
    monkeypatch.undo()
    wait_until_idle(llm)


def test_a_caller_at_the_recursion_limit_leaves_the_model_whole(llm):
    expected = answer_of(llm, 5)

    def down(frames: int) -> object:
        return down(frames - 1) if frames else answer_of(llm, 5)

    limit, failed = sys.getrecursionlimit(), 0
    try:
        for frames in range(150, 260):
            sys.setrecursionlimit(len(inspect.stack(0)) + 260)
            try:
                down(frames)
            except RecursionError:
                failed += 1
    finally:
        sys.setrecursionlimit(limit)
    assert failed > 0
    assert in_threads(lambda _: answer_of(llm, 5), 2) == [expected, expected]
    wait_until_idle(llm)


def test_what_breaks_a_pass_ends_the_requests_in_it(llm, monkeypatch):
    expected = answer_of(llm, 5)
    monkeypatch.setattr(llm.parts.engine, "_schedule", lambda: 1 / 0)
    with pytest.raises(OutriderError, match="the pass failed: ZeroDivisionError"):
        list(llm.stream(*request(8)))
    with pytest.raises(OutriderError, match="the pass failed"):
        answer_of(llm, 5)
    monkeypatch.undo()
    assert answer_of(llm, 5) == expected
    wait_until_idle(llm)


def test_measuring_and_scoring_take_their_turn(llm):
    """They run passes of their own, between those of requests."""
    alone, text = answer_of(llm, 7), [5, 6, 7, 8] * 20
    scores = llm.score([text])

    def work(number: int) -> None:
        for _ in range(4):
            if number % 3 == 0:
                assert answer_of(llm, 7) == alone
            elif number % 3 == 1:
                assert llm.score([text]) == scores
            else:
                llm.parts.measure.verify(4, 0, 20)

    in_threads(work, 6)


def running_until(done: threading.Event, run: Callable[[Generator[None, None, None]], None]) -> list[threading.Thread]:
    """Three threads whose work goes on, as scoring's does, for half a minute at most."""
    deadline = time.monotonic() + 30

    def on_and_on() -> Generator[None, None, None]:
        while not done.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
            yield

    threads = [threading.Thread(target=lambda: run(on_and_on())) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("served", [False, True], ids=["driver", "server"])
def test_callers_that_go_on_do_not_keep_requests_waiting(llm, served):
    scheduler, done, pieces = Scheduler(llm), threading.Event(), SimpleQueue()
    if served:
        scheduler.start()
    threads = running_until(done, scheduler.run if served else llm.parts.driver.run)
    prompt, params = request(1)
    if served:
        scheduler.submit(prompt, params, pieces.put)
        while pieces.get(timeout=60).finish_reason is None:
            pass
    else:
        llm.generate([prompt], params)
    waited = not any(thread.is_alive() for thread in threads)
    done.set()
    for thread in threads:
        thread.join()
    if served:
        scheduler.stop()
    assert not waited


def test_the_core_refuses_a_second_thread(llm):
    """Below the engine nothing takes turns: whoever comes second gets an error, and memory stays whole."""
    program, rows, until = llm.parts.target.forward.program, 64, time.monotonic() + 2
    caches = [cpu.KvCache(cpu.KvPages(cpu.kv_shapes(kv_layers(llm.config)), "float16"), 256, 256) for _ in range(6)]
    chain = np.arange(rows, dtype=np.int32)
    problems: list[str] = []

    def enter(number: int) -> int:
        cache, ran = caches[number // 2], 0  # two threads each
        logits = np.empty((rows, VOCAB), np.float32)
        calls: list[Callable[[], object]] = [
            lambda: program.run(chain % VOCAB, np.zeros(rows, np.int32), chain - 1, chain, [cache], logits),
            lambda: cache.commit(chain),
            lambda: cache.read(0, 0, min(cache.length, 2)),
            lambda: cache.truncate(0),
            lambda: program.read(llm.parts.target.forward.hidden, rows),
            lambda: program.native.buffer("another", 16) if number == 0 and ran < 200 else None,
            program.prefetch_weights,
        ]
        while time.monotonic() < until:
            for call in calls:
                try:
                    call()
                    ran += 1
                except RuntimeError as problem:
                    problems.append(str(problem))
                except ValueError:
                    pass  # another thread has committed or truncated in between
        return ran

    assert sum(in_threads(enter, 12)) > 0
    assert problems
    assert all("in use by another thread" in problem for problem in problems)


needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")


def in_child(work: Callable[[], object]) -> object:
    """What `work` gives in a forked child; its exception's text if it raises."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child() -> None:
        try:
            results.put(work())
        except Exception as problem:
            results.put(str(problem))

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert not process.is_alive(), "the child hangs"
    return results.get()


@needs_fork
def test_a_forked_child_answers_as_its_parent(llm):
    expected = answer_of(llm, 5)
    assert in_child(lambda: answer_of(llm, 5)) == expected
    assert answer_of(llm, 5) == expected


@needs_fork
def test_a_fork_waits_for_the_pass_of_another_thread(llm):
    expected, stop = [answer_of(llm, number) for number in range(4)], threading.Event()

    def busy() -> None:
        while not stop.is_set():
            answer_of(llm, 9)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for number in range(4):
            assert in_child(lambda number=number: answer_of(llm, number)) == expected[number]
    finally:
        stop.set()
        thread.join()


@needs_fork
def test_threads_that_fork_at_once_do_not_block_the_model(llm):
    expected, stop = answer_of(llm, 4), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            answer_of(llm, 9)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert in_threads(lambda _: in_child(lambda: answer_of(llm, 4)), 3) == [expected] * 3
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert answer_of(llm, 4) == expected


@needs_fork
def test_a_fork_waits_for_a_pass_and_not_for_a_request(llm, monkeypatch):
    step = llm.parts.engine.step

    def slowly() -> None:
        with llm.parts.target.gate:
            time.sleep(0.05)
            step()

    monkeypatch.setattr(llm.parts.engine, "step", slowly)
    stream = llm.stream([5, 6, 7], SamplingParams(max_tokens=60, draft="off", ignore_end=True))
    next(stream)
    started = time.monotonic()
    assert in_child(lambda: "forked") == "forked"
    assert time.monotonic() - started < 1.5  # the request takes 3 s, a pass 0.05 s
    stream.close()
    wait_until_idle(llm)


@needs_fork
def test_a_stream_of_the_parent_ends_in_the_child_with_an_error_and_goes_on_in_the_parent(llm):
    prompt, params = request(8)
    expected = answer_of(llm, 8)[0]
    stream = llm.stream(prompt, params)
    first = next(stream)
    assert "forked while the request ran" in str(in_child(lambda: list(stream)))
    rest = [token for piece in (first, *stream) for token in piece.token_ids]
    assert tuple(rest) == expected
    assert os.getpid() == multiprocessing.current_process().pid

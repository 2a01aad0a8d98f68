"""Several models in one server: each answers as if it were alone, whatever is loaded and unloaded meanwhile."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import httpx
import openai
import pytest
from server.apis import APIS
from server.posting import post
from server.served_checkpoint import save_served
from serving import running, serving

from outrider import LLM
from outrider.errors import CheckpointError
from outrider.fit import Needs
from outrider.server.host import Host
from outrider.server.limits import Limits
from outrider.server.model_set import ModelSet
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.slot import About, Slot

NAMES = ("red", "green", "blue")
NEEDS = Needs(weights=1 << 20, cache=8 << 20, buffers=0)
PROMPT = "abc de 1ab "


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models that write different texts, each with its drafter."""
    variants = ("gemma4-e2b", "gemma4-dense", "gemma4-k-eq-v")
    root = tmp_path_factory.mktemp("several")
    return {name: save_served(root / name, variant) for name, variant in zip(NAMES, variants, strict=True)}


class Machine:
    """A set of models on a machine with room for some of them. `loads` are the names in the order of their loads."""

    def __init__(self, folders, *, room: int, limits: Limits | None = None, idle_unload: float | None = None) -> None:
        self.loads: list[str] = []
        self.before_load = lambda _name: None
        self.targets: dict[str, weakref.ref] = {}
        self.most_loaded = 0
        host = Host(limits=limits)
        slots = [
            Slot([name], partial(self._load, host, files), needs=NEEDS, about=About(256, chat=True))
            for name, files in folders.items()
        ]
        self._room = room
        self.models = ModelSet(slots, host, idle_unload=idle_unload, available=self._available)

    def _available(self) -> int:
        """What is left where each loaded model has taken what it needs; its cache is left until it is filled."""
        loaded = [slot for slot in self.models.slots if slot.service is not None]
        return (self._room - len(loaded)) * NEEDS.total + len(loaded) * NEEDS.cache

    def _load(self, host, files, slot, _shares, check):
        self.before_load(slot.name)
        self.loads.append(slot.name)
        llm = LLM(files[0], drafter=files[1], threads=1, context=256, kv_cache_bytes=NEEDS.cache, progress=False)
        if check is not None:
            check()
        self.targets[slot.name] = weakref.ref(llm.parts.target)
        self.most_loaded = max(self.most_loaded, 1 + sum(s.service is not None for s in self.models.slots))
        scheduler = Scheduler(llm, limits=host.limits, finished=slot.metrics.finished, turns=host.turns, running=4)
        return Service(llm, scheduler, host, name=slot.name)

    def states(self) -> dict[str, str]:
        return {slot.name: slot.state for slot in self.models.slots}


def body(name, **more):
    return {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more


def complete(url, name, **more):
    return post(url, "/v1/completions", body(name, **more))


def listed(url):
    return {m["id"]: m["outrider"]["state"] for m in httpx.get(f"{url}/v1/models").json()["data"]}


@pytest.fixture(scope="module")
def alone(folders):
    """What a server with one of the models alone answers: name -> route -> answer."""
    answers = {}
    for name, (folder, _) in folders.items():
        with serving(LLM(folder, drafter=None, threads=1, context=256, progress=False)) as (url, _):
            asked = {path: api.ask("tell abc", 10) | {"model": "tiny", "temperature": 0} for path, api in APIS.items()}
            answers[name] = {path: APIS[path].whole(post(url, path, one)) for path, one in asked.items()}
    return answers


def test_hundreds_of_requests_over_three_models_with_room_for_two(folders, alone):
    machine = Machine(folders, room=2)
    jobs = [(name, path, stream) for path in APIS for stream in (False, True) for name in NAMES] * 9

    def ask(job):
        name, path, stream = job
        api = APIS[path]
        asked = api.ask("tell abc", 10) | {"model": name, "temperature": 0, "stream": stream}
        if not stream:
            return api.whole(post(url, path, asked))
        with httpx.stream("POST", f"{url}{path}", json=asked, timeout=60) as lines:
            return api.read(list(lines.iter_lines()))

    with running(machine.models) as url, ThreadPoolExecutor(16) as clients:
        for (name, path, _), found in zip(jobs, clients.map(ask, jobs), strict=True):
            assert found.same(alone[name][path]), (name, path, found.unlike(alone[name][path]))
        assert machine.most_loaded == 2
        assert sorted(listed(url).values()) == ["ready", "ready", "unloaded"]
        assert all(slot.leases == 0 for slot in machine.models.slots)
    assert len(jobs) > 200


def test_a_model_is_loaded_when_a_request_names_it_and_its_state_is_listed(folders):
    machine = Machine(folders, room=3)
    loading, go_on = threading.Event(), threading.Event()

    def wait(_name):
        loading.set()
        assert go_on.wait(20)

    machine.before_load = wait
    with running(machine.models) as url, ThreadPoolExecutor() as clients:
        assert listed(url) == dict.fromkeys(NAMES, "unloaded")
        both = [clients.submit(complete, url, "green") for _ in range(2)]
        assert loading.wait(20)
        assert listed(url) == {"red": "unloaded", "green": "loading", "blue": "unloaded"}
        assert httpx.get(f"{url}/ready").status_code == 200
        go_on.set()
        assert both[0].result()["choices"] == both[1].result()["choices"]
        assert machine.loads == ["green"], "two requests share one load"
        assert listed(url)["green"] == "ready"
        assert complete(url, "")["model"] == "red", "a request without a name is for the first"


def test_the_least_recently_used_one_leaves_and_its_memory_with_it(folders):
    machine = Machine(folders, room=2)
    with running(machine.models) as url:
        first = complete(url, "red")
        complete(url, "green")
        complete(url, "red")
        gc.disable()
        try:
            complete(url, "blue")
            assert machine.targets["green"]() is None, "released without a garbage collection"
        finally:
            gc.enable()
        assert machine.states() == {"red": "ready", "green": "unloaded", "blue": "ready"}
        assert machine.loads == ["red", "green", "blue"]
        assert complete(url, "red")["choices"] == first["choices"]
        counted = {line for line in httpx.get(f"{url}/metrics").text.splitlines() if "prompt_tokens_total{" in line}
        assert any(line.startswith('outrider_prompt_tokens_total{model_name="green"}') for line in counted)
        assert any(line.startswith('vllm:prompt_tokens_total{engine="0",model_name="green"}') for line in counted)
        loaded = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if "model_loaded{" in line]
        expected = zip(NAMES, (1.0, 0.0, 1.0), strict=True)
        assert loaded == [f'outrider_model_loaded{{model_name="{name}"}} {value}' for name, value in expected]


def test_one_that_works_is_not_unloaded(folders):
    """What needs its memory waits until its request is answered; requests that come for it meanwhile wait too."""
    machine = Machine(folders, room=1)
    with running(machine.models) as url, ThreadPoolExecutor() as clients:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        complete(url, "red")
        engine = machine.models.slots[0].service.parts.engine
        step = engine.step

        def slowly(step=step):
            time.sleep(0.02)
            step()

        engine.step = slowly
        stream = client.completions.create(model="red", prompt=PROMPT, max_tokens=60, stream=True, temperature=0)
        pieces = [next(stream)]
        other = clients.submit(complete, url, "green")
        while machine.states()["red"] != "unloading":
            time.sleep(0.01)
        again = clients.submit(complete, url, "red")
        pieces += list(stream)
        assert pieces[-1].choices[0].finish_reason in ("length", "stop")
        assert other.result()["model"] == "green"
        assert again.result()["model"] == "red"
        assert machine.loads == ["red", "green", "red"]
        del engine, step, slowly


def test_what_waits_for_memory_too_long_is_told_so(folders):
    machine = Machine(folders, room=1, limits=Limits(waiting=0.3))
    with running(machine.models) as url:
        complete(url, "red")
        lease = machine.models.lease("red")
        assert lease.take()
        found = post(url, "/v1/completions", body("green"), 503)
        assert "which requests to red have used for 0.3 seconds: try again later" in found["error"]["message"]
        assert machine.states()["red"] == "ready"
        assert complete(url, "red")["model"] == "red"
        lease.end()


def test_a_stream_waits_for_its_model_with_comments(folders, monkeypatch):
    monkeypatch.setattr("outrider.server.event_stream.COMMENT_SECONDS", 0.1)
    monkeypatch.setattr("outrider.server.route._SOON_SECONDS", 0.1)
    machine = Machine(folders, room=3)
    go_on = threading.Event()
    machine.before_load = lambda _name: go_on.wait(20)
    with running(machine.models) as url:
        with httpx.stream("POST", f"{url}/v1/completions", json=body("blue", stream=True), timeout=60) as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()
            assert next(lines) == ": waiting"
            go_on.set()
            assert list(lines)[-2] == "data: [DONE]"
        whole = complete(url, "blue")["choices"][0]["text"]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        go_on.clear()
        machine.before_load = lambda _name: time.sleep(0.5)
        chunks = client.completions.create(model="red", prompt=PROMPT, max_tokens=12, temperature=0, stream=True)
        text = "".join(chunk.choices[0].text for chunk in chunks)
        assert text == complete(url, "red")["choices"][0]["text"]
        assert whole


def test_a_load_that_fails_is_the_error_of_its_requests_and_may_be_tried_again(folders, monkeypatch):
    monkeypatch.setattr("outrider.server.route._SOON_SECONDS", 0.1)
    machine = Machine(folders, room=3)

    def fail(name):
        time.sleep(0.3)
        raise CheckpointError("is damaged", path=name, remedy="Download it again")

    machine.before_load = fail
    with running(machine.models) as url:
        for path, api in APIS.items():
            message = api.error(post(url, path, api.ask("x", 2) | {"model": "red"}, 503))
            assert "red cannot be loaded: red: is damaged. Download it again" in message, message
        with httpx.stream("POST", f"{url}/v1/completions", json=body("red", stream=True), timeout=60) as stream:
            events = [line for line in stream.iter_lines() if line]
        assert "red cannot be loaded" in events[0]
        assert machine.states()["red"] == "unloaded"
        machine.before_load = lambda _name: None
        assert complete(url, "red")["model"] == "red"


def test_one_that_leaves_while_its_model_is_loaded_leaves_nothing_behind(folders):
    machine = Machine(folders, room=3)
    go_on = threading.Event()
    machine.before_load = lambda _name: go_on.wait(20)
    with running(machine.models) as url:
        for stream in (False, True):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/completions", json=body("red", stream=stream), timeout=0.3)
        deadline = time.monotonic() + 20
        while machine.models.slots[0].leases and time.monotonic() < deadline:
            time.sleep(0.05)
        assert machine.models.slots[0].leases == 0
        go_on.set()
        assert complete(url, "red")["model"] == "red"
        assert machine.loads == ["red"], "the load went on for the next request"


def test_an_idle_model_is_unloaded(folders):
    machine = Machine(folders, room=3, idle_unload=0.2)
    with running(machine.models) as url:
        first = complete(url, "red")
        deadline = time.monotonic() + 20
        while listed(url)["red"] != "unloaded" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert listed(url)["red"] == "unloaded"
        assert complete(url, "red")["choices"] == first["choices"]


def test_an_unknown_name_lists_what_there_is(folders):
    with running(Machine(folders, room=3).models) as url:
        found = post(url, "/v1/completions", body("grey"), 404)
        assert found["error"]["message"] == "there is no model grey: this is red or green or blue"
        assert httpx.get(f"{url}/v1/models/grey").status_code == 404


def test_routes_that_count_tokens_take_the_model_that_is_named(folders):
    machine = Machine(folders, room=3)
    with running(machine.models) as url:
        assert post(url, "/tokenize", {"model": "green", "prompt": "abc"})["count"] > 0
        assert httpx.get(f"{url}/tokenizer_info", params={"model": "blue"}).json()["bos_token"] == "<bos>"
        conversation = {"messages": [{"role": "user", "content": "x"}]}
        assert post(url, "/v1/messages/count_tokens", {"model": "red"} | conversation)["input_tokens"] > 0
        assert machine.loads == ["green", "blue", "red"]


def test_a_server_that_drains_loads_no_more(folders):
    machine = Machine(folders, room=3)
    loading, go_on = threading.Event(), threading.Event()

    def wait(_name):
        loading.set()
        go_on.wait(20)

    machine.before_load = wait
    with running(machine.models) as url, ThreadPoolExecutor() as clients:
        asked = clients.submit(post, url, "/v1/completions", body("red"), 503)
        assert loading.wait(20)
        machine.models.drain()
        assert "shutting down" in asked.result()["error"]["message"]
        assert httpx.get(f"{url}/ready").status_code == 503
        go_on.set()


def test_a_response_in_the_background_keeps_its_model(folders):
    machine = Machine(folders, room=1)
    with running(machine.models) as url:
        asked = {"model": "red", "input": "abc", "max_output_tokens": 40, "background": True}
        number = post(url, "/v1/responses", asked)["id"]
        assert complete(url, "green")["model"] == "green"
        assert httpx.get(f"{url}/v1/responses/{number}").json()["status"] in ("completed", "incomplete")


def test_passes_take_turns(folders):
    """Two models that decode at once get their passes one after the other."""
    machine = Machine(dict(list(folders.items())[:2]), room=2)
    inside, most, order = [], [], []
    with running(machine.models) as url, ThreadPoolExecutor() as clients:
        for name in NAMES[:2]:
            complete(url, name)
        for slot in machine.models.slots:

            def step(own=slot.service.parts.engine.step, name=slot.name):
                inside.append(name)
                most.append(len(inside))
                time.sleep(0.002)
                own()
                order.append(name)
                inside.remove(name)

            slot.service.parts.engine.step = step
        list(clients.map(lambda name: complete(url, name, max_tokens=100, ignore_eos=True), NAMES[:2]))
    assert max(most) == 1
    changes = sum(a != b for a, b in pairwise(order))
    assert changes > 10, "neither waits for the other's answer"

"""Two clients of one server: whatever the second tries, it learns nothing of the first's prompts and answers.

The second may pin drafts, force tokens by biases and grammars, and read all that the server reports. "Q" stands for the
secret: nothing else here has one, so a Q among what was rejected is a piece of the first client's text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from server.apis import APIS, CHAT, COMPLETION, MESSAGES, RESPONSES
from serving import serving

from outrider import LLM, SamplingParams
from outrider.drafters.history import HistoryDrafter

ALICE, BOB = "key-of-alice", "key-of-bob"
KNOWN, SECRET = 'is Mr. Ferrum\n"', 'QVQWQX"'
"""The last known character begins a JSON string, which every route can demand, and the secret ends it."""
MINE, OTHER = 'QVWXYU"', 'QUYXWV"'
"""A secret that is said, and another one."""
WRONG = 300
"""A token that no secret has."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Attacked:
    """What a route takes and reports besides what `APIS` says.

    demand: the fields that demand this JSON text.
    stats: what a whole answer reports of drafting.
    cached: the prompt's tokens that were found in the prefix cache.
    newline: whether the prompt's template ends in one.
    marks: whether a stream reports of each token, and biases and grammars can force any.
    """

    demand: Callable[[str], Body]
    stats: Callable[[Body], Body]
    cached: Callable[[Body], int]
    newline: bool = True
    marks: bool = False


def _schema(text: str) -> Body:
    return {"type": "json_schema", "schema": {"const": json.loads(text)}}


ATTACKED = {
    COMPLETION: Attacked(
        lambda text: {"grammar": f"start: {json.dumps(text)}"},
        lambda body: body["outrider"][0],
        lambda body: body["usage"]["prompt_tokens_details"]["cached_tokens"],
        newline=False,
        marks=True,
    ),
    CHAT: Attacked(
        lambda text: {"grammar": f"start: {json.dumps(text)}"},
        lambda body: body["outrider"][0],
        lambda body: body["usage"]["prompt_tokens_details"]["cached_tokens"],
        marks=True,
    ),
    MESSAGES: Attacked(
        lambda text: {"output_config": {"format": _schema(text)}},
        lambda body: body["outrider"],
        lambda body: body["usage"]["cache_read_input_tokens"],
    ),
    RESPONSES: Attacked(
        lambda text: {"text": {"format": {"name": "x", **_schema(text)}}},
        lambda body: body["outrider"],
        lambda body: body["usage"]["input_tokens_details"]["cached_tokens"],
    ),
}


def test_no_route_is_left_out():
    assert ATTACKED.keys() == APIS.keys()


def byte_id(character: str) -> int:
    return 3 + ord(character)


@dataclass
class Client:
    """One client, on one of the routes."""

    base: str
    route: str
    key: str = ALICE
    salt: str = ""

    def send(self, text: str, /, tokens: int = 4, **fields: Any) -> httpx.Response:
        """`text` is the prompt, or the message, after which the template adds a newline."""
        asked = APIS[self.route].ask(text, tokens) | {"temperature": 0}
        asked |= {} if self.route == MESSAGES else {"ignore_eos": True}
        asked |= {"cache_salt": self.salt} if self.salt else {}
        headers = {"Authorization": f"Bearer {self.key}"}
        found = httpx.post(f"{self.base}{self.route}", json=asked | fields, headers=headers, timeout=60)
        assert found.status_code == 200, found.text
        return found

    def stats(self, text: str, /, **fields: Any) -> Body:
        """What a whole answer reports of drafting."""
        return ATTACKED[self.route].stats(self.send(text, **fields).json())

    def cached_tokens(self, text: str, /, **fields: Any) -> int:
        return ATTACKED[self.route].cached(self.send(text, **fields).json())

    def marks(self, text: str, /, **fields: Any) -> dict[str, list[Any]]:
        """What a stream reports of each token."""
        lines = self.send(text, stream=True, **fields).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        names = ("texts", "sources", "rejected", "rejected_texts", "drafted")
        return {name: [value for event in events for value in event["outrider"][name]] for name in names}


def with_known(client: Client) -> tuple[str, str]:
    """The prompt that ends where the known text does but for its last token, which is to be forced."""
    before, last = KNOWN[:-1], KNOWN[-1]
    return before.removesuffix("\n") if ATTACKED[client.route].newline else before, last


@pytest.fixture(scope="module")
def shared(json_llm):
    """A server with a shared history and two keys. It does not draft what a guess's own grammar demands, which would
    come before what is drafted from another's text."""
    planner = json_llm.parts.engine.planner
    planner.drafters = [drafter for drafter in planner.drafters if drafter.name != "grammar"]
    with serving(json_llm, keys=[ALICE, BOB]) as (base, _):
        yield base


@pytest.fixture
def fresh(json_llm):
    """Nothing is kept of other tests."""
    json_llm.parts.caches.clear()
    history = json_llm.parts.engine.planner.drafters[-1]
    assert isinstance(history, HistoryDrafter)
    forget(history)
    return history


def forget(history: HistoryDrafter) -> None:
    history._generations.clear()
    history._kept = 0


@pytest.fixture(params=ATTACKED)
def route(request):
    return request.param


@pytest.fixture(params=[route for route, attacked in ATTACKED.items() if attacked.marks])
def marking(request):
    """A route that reports of each token."""
    return request.param


SHARING = [{}, {"key": BOB}, {"salt": "another"}]
"""What an attacker has in common with its victim, and what not."""


# -- rejected drafts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attacker", SHARING)
def test_a_forced_token_does_not_bring_the_next_one_out_as_rejected(shared, fresh, marking, attacker):  # noqa: ARG001
    Client(shared, marking).send(f"My name {KNOWN}{SECRET}")
    eve = Client(shared, marking, **attacker)
    prompt, last = with_known(eve)
    marks = eve.marks(prompt, drafting=15, logit_bias={str(byte_id(last)): 100})
    assert set(marks["texts"]) == {last}, "the bias forces it"
    assert byte_id("Q") not in marks["rejected"]
    assert not any(text and "Q" in text for text in marks["rejected_texts"])


@pytest.mark.parametrize("attacker", SHARING)
def test_nor_does_a_grammar_that_demands_another_token_there(shared, fresh, marking, attacker):  # noqa: ARG001
    Client(shared, marking).send(f"My name {KNOWN}{SECRET}")
    eve = Client(shared, marking, **attacker)
    prompt, last = with_known(eve)
    demand = rf"start: <[{byte_id(last)}]> <[{WRONG}]> /(.|\n)*/"
    marks = eve.marks(prompt, drafting=15, grammar=demand)
    assert marks["texts"][0] == last
    assert byte_id("Q") not in marks["rejected"]
    assert not any(text and "Q" in text for text in marks["rejected_texts"])


def test_answers_do_not_come_out_either(shared, fresh, marking):  # noqa: ARG001
    forced = {"grammar": f"start: {json.dumps(KNOWN + SECRET)}", "tokens": 40}
    Client(shared, marking).send("My name", **forced)
    eve = Client(shared, marking)
    prompt, last = with_known(eve)
    marks = eve.marks(prompt, drafting=15, logit_bias={str(byte_id(last)): 100})
    assert not any(text and "Q" in text for text in marks["rejected_texts"])


# -- accepted drafts -------------------------------------------------------------------------------------------------


def guess(client: Client, secret: str, **fields: Any) -> Body:
    """Forces a guess of the secret. Were it drafted from another's text, it would be accepted."""
    prompt, last = with_known(client)
    return client.stats(prompt, tokens=20, drafting=15, **ATTACKED[client.route].demand(last + secret), **fields)


@pytest.mark.parametrize("attacker", SHARING[1:])
def test_counts_do_not_confirm_a_guess_across_keys_and_salts(shared, fresh, route, attacker):
    found = []
    for secret in (MINE, OTHER):
        forget(fresh)  # the attacker's own guess before
        Client(shared, route).send(f"My name {KNOWN}{MINE}")
        found.append(guess(Client(shared, route, **attacker), secret))
    right, wrong = found
    for name in ("drafted", "accepted", "target_passes", "drafted_by_source", "accepted_by_source"):
        assert right[name] == wrong[name]
    assert right["accepted"] == 0


def test_without_a_shared_history_nothing_confirms_a_guess(tmp_path, json_llm, route):  # noqa: ARG001
    """As `outrider serve` runs it unless asked otherwise."""
    planner = json_llm.parts.engine.planner
    own = planner.drafters
    planner.drafters = [drafter for drafter in own if drafter.name != "history"]
    try:
        with serving(json_llm) as (base, _):
            Client(base, route).send(f"My name {KNOWN}{MINE}")
            right, wrong = (guess(Client(base, route), secret) for secret in (MINE, OTHER))
    finally:
        planner.drafters = own
    assert (right["accepted"], right["drafted"]) == (wrong["accepted"], wrong["drafted"]) == (0, 0)


def test_a_shared_history_helps_within_one_key_and_salt_and_counts_as_lookup(shared, fresh, route):  # noqa: ARG001
    mine = {"key": BOB, "salt": "mine"}
    Client(shared, route, **mine).send(f"My name {KNOWN}{MINE}")
    stats = guess(Client(shared, route, **mine), MINE)
    assert stats["accepted_by_source"] == {"lookup": stats["accepted"]}
    assert stats["accepted"] >= 4
    if ATTACKED[route].marks:
        prompt, last = with_known(Client(shared, route))
        demand = ATTACKED[route].demand(last + MINE)
        marks = Client(shared, route, **mine).marks(prompt, drafting=15, tokens=20, **demand)
        assert set(marks["sources"]) == {None, "lookup"}


# -- the prefix cache ------------------------------------------------------------------------------------------------

LONG = "What the first client asked, word for word."


@pytest.mark.parametrize("attacker", SHARING[1:])
def test_cached_tokens_do_not_confirm_a_prompt_across_keys_and_salts(shared, fresh, route, attacker):  # noqa: ARG001
    alice, eve = Client(shared, route), Client(shared, route, **attacker)
    alice.send(LONG)
    assert eve.cached_tokens(LONG) == 0
    assert eve.cached_tokens(LONG) > 40, "its own it finds"
    assert alice.cached_tokens(LONG) > 40, "which takes nothing from the others"


def test_the_same_salt_of_different_keys_is_not_the_same(shared, fresh, route):  # noqa: ARG001
    """Not even where one could be mistaken for the other."""
    Client(shared, route, ALICE, "s").send(LONG)
    for salt in ("s", "0:s", ":s", "1:s"):
        assert Client(shared, route, BOB, salt).cached_tokens(LONG) == 0
    assert Client(shared, route, ALICE, "0:s").cached_tokens(LONG) == 0


# -- the counters ----------------------------------------------------------------------------------------------------


def test_metrics_need_a_key_where_there_is_one(shared):
    assert httpx.get(f"{shared}/metrics").status_code == 401
    assert httpx.get(f"{shared}/metrics", headers={"Authorization": "Bearer x"}).status_code == 401
    for key in (ALICE, BOB):
        assert httpx.get(f"{shared}/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200


# -- taking no part --------------------------------------------------------------------------------------------------


def test_a_request_can_leave_nothing_behind(shared, fresh, json_llm, route):
    alice = Client(shared, route)
    alice.send(LONG + KNOWN + MINE, cache_prompt=False)
    assert json_llm.parts.caches.kept == 0
    assert fresh._kept == 0
    assert alice.cached_tokens(LONG + KNOWN + MINE) == 0
    json_llm.parts.caches.clear()
    forget(fresh)
    alice.send(f"My name {KNOWN}{MINE}", cache_prompt=False)
    assert guess(alice, MINE)["accepted"] == 0


def test_and_draws_on_nothing(shared, fresh, route):  # noqa: ARG001
    alice = Client(shared, route)
    alice.send(f"My name {KNOWN}{MINE}")
    assert guess(alice, MINE, cache_prompt=False)["accepted"] == 0
    assert alice.cached_tokens(f"My name {KNOWN}{MINE}", cache_prompt=False) == 0
    assert guess(alice, MINE)["accepted"] >= 4


# -- many salts ------------------------------------------------------------------------------------------------------


def test_many_salts_do_not_grow_memory(tiny):
    llm = LLM(tiny("gemma3").gguf, threads=1, context=64, lookup_history=500, prefix_cache_bytes=4 << 20)
    history = llm.parts.engine.planner.drafters[-1]
    assert isinstance(history, HistoryDrafter)
    for number in range(400):
        llm.generate([[5, 6, 7, number % 500]], SamplingParams(max_tokens=2, cache_salt=f"salt {number}"))
        assert history._kept <= 500
        assert llm.parts.caches.kept <= 256
        assert llm.parts.caches.kept_bytes <= 4 << 20
    assert len(history._generations) < 100
    assert not history._readings


@pytest.mark.parametrize(("salt", "status"), [("x" * 256, 200), ("x" * 257, 400), (7, 400), (None, 200)])
def test_a_salt_is_a_text_of_bounded_length(shared, route, salt, status):
    headers = {"Authorization": f"Bearer {ALICE}"}
    asked = APIS[route].ask("x", 1) | {"cache_salt": salt}
    found = httpx.post(f"{shared}{route}", json=asked, headers=headers, timeout=60)
    assert found.status_code == status
    if status == 400:
        assert "cache_salt" in APIS[route].error(found.json())


# -- routes that answer nothing --------------------------------------------------------------------------------------


def test_counting_and_scoring_a_prompt_show_nothing_of_anothers_and_keep_nothing(shared, fresh, json_llm):  # noqa: ARG001
    """Routes that only look at a prompt, and log-probabilities of a prompt, which are computed apart."""
    counted = {
        "/tokenize": {"prompt": LONG},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": LONG}]},
        "/v1/responses/input_tokens": {"input": LONG},
        COMPLETION: {"prompt": LONG, "echo": True, "logprobs": 1, "max_tokens": 0, "cache_prompt": False},
    }
    answers = []
    for kept in (False, True):
        if kept:
            Client(shared, COMPLETION).send(LONG)
        before = json_llm.parts.caches.kept
        for path, body in counted.items():
            found = httpx.post(f"{shared}{path}", json=body, headers={"Authorization": f"Bearer {BOB}"}, timeout=60)
            assert found.status_code == 200, found.text
            answers.append({name: value for name, value in found.json().items() if name not in ("id", "created")})
        assert json_llm.parts.caches.kept == before
    half = len(answers) // 2
    for first, second in zip(answers[:half], answers[half:], strict=True):
        first.pop("outrider", None), second.pop("outrider", None)  # has a random seed
        assert first == second

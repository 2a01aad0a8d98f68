"""Two clients of one server: whatever the second tries, it finds none of the first's responses, and cannot learn that
there are any."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest
from serving import serving

ALICE, BOB = "key-of-alice", "key-of-bob"
LONG = "What the first client asked, word for word."
STRANGERS = [{"key": BOB}, {"salt": "another"}, {"key": BOB, "salt": "0:"}, {"salt": "0"}]
"""What an attacker has in common with its victim, and what not."""


class Client:
    """One client."""

    def __init__(self, base: str, key: str = ALICE, salt: str = "") -> None:
        self._salt = salt
        self._http = httpx.Client(base_url=f"{base}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def create(self, text: Any, **fields: Any) -> httpx.Response:
        asked = {"input": text, "max_output_tokens": 4, "temperature": 0, "ignore_eos": True, "cache_salt": self._salt}
        return self._http.post("/responses", json=asked | fields)

    def made(self, text: Any, **fields: Any) -> dict[str, Any]:
        found = self.create(text, **fields)
        assert found.status_code == 200, found.text
        body: dict[str, Any] = found.json()
        return body

    def ask(self, method: str, path: str, **query: Any) -> httpx.Response:
        return self._http.request(method, f"/responses/{path}", params={"cache_salt": self._salt} | query)

    def attempts(self, response: dict[str, Any]) -> list[httpx.Response]:
        """All that can be done with the id of a response and of its items."""
        own = response["id"]
        items = [item["id"] for item in response["output"]] or [f"msg_{own.removeprefix('resp_')}_0"]
        items.append(f"item_{own.removeprefix('resp_')}_in0")
        return [
            self.ask("GET", own),
            self.ask("GET", own, stream="true"),
            self.ask("GET", f"{own}/input_items"),
            self.ask("POST", f"{own}/cancel"),
            self.ask("DELETE", own),
            self.create("And?", previous_response_id=own),
            *(self.create([{"type": "item_reference", "id": item}]) for item in items),
        ]


@pytest.fixture(scope="module")
def shared(json_llm):
    with serving(json_llm, keys=[ALICE, BOB]) as (base, _):
        yield base


def unknown(response: dict[str, Any]) -> dict[str, Any]:
    """The same with ids that were never given out."""
    other = {"id": "resp_" + "0" * 48}
    return other | {"output": [{"id": item["id"].replace(response["id"][5:], "0" * 48)} for item in response["output"]]}


def same_but_for_the_id(found: httpx.Response) -> tuple[int, str, list[str]]:
    text = re.sub(r"[0-9a-f]{48}", "ID", found.text)
    return found.status_code, text, sorted(name for name in found.headers if name != "date")


@pytest.mark.parametrize("attacker", STRANGERS)
def test_what_another_stored_is_not_found_and_looks_as_if_it_never_was(shared, attacker):
    alice, eve = Client(shared), Client(shared, **attacker)
    response = alice.made(LONG)
    found, never = eve.attempts(response), eve.attempts(unknown(response))
    assert {each.status_code for each in found} == {404}
    assert [same_but_for_the_id(each) for each in found] == [same_but_for_the_id(each) for each in never]
    assert alice.ask("GET", response["id"]).json() == response, "it was not deleted either"
    assert alice.create("And?", previous_response_id=response["id"]).status_code == 200


@pytest.mark.parametrize("attacker", STRANGERS)
def test_nor_is_what_another_generates(shared, slow_step, attacker):  # noqa: ARG001
    alice, eve = Client(shared), Client(shared, **attacker)
    response = alice.made(LONG, background=True, max_output_tokens=100)
    found, never = eve.attempts(response), eve.attempts(unknown(response))
    assert alice.ask("GET", response["id"]).json()["status"] == "in_progress", "it was not cancelled"
    assert [same_but_for_the_id(each) for each in found] == [same_but_for_the_id(each) for each in never]
    assert alice.ask("POST", f"{response['id']}/cancel").json()["status"] == "cancelled"


@pytest.fixture
def slow_step(json_llm, monkeypatch):
    step = json_llm.parts.engine.step

    def slowly():
        time.sleep(0.03)
        step()

    monkeypatch.setattr(json_llm.parts.engine, "step", slowly)


def test_without_a_key_there_is_nothing_at_all(shared):
    response = Client(shared).made(LONG)
    assert {each.status_code for each in Client(shared, key="eve").attempts(response)} == {401}


def test_a_salt_is_needed_to_read_what_was_stored_with_it(shared):
    alice = Client(shared, salt="mine")
    response = alice.made(LONG)
    assert {each.status_code for each in Client(shared).attempts(response)} == {404}
    assert alice.ask("GET", response["id"]).json() == response
    assert alice.made("And?", previous_response_id=response["id"])["previous_response_id"] == response["id"]


def test_ids_cannot_be_guessed(shared):
    alice = Client(shared)
    ids = [alice.made("x")["id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"resp_[0-9a-f]{48}", each) for each in ids)
    digits = [{each[at] for each in ids} for at in range(5, 53)]
    assert min(map(len, digits)) > 4, "no digit is the same, or nearly, in all ids"


@pytest.mark.parametrize("attacker", STRANGERS)
def test_cached_tokens_do_not_confirm_a_prompt_across_keys_and_salts(json_llm, shared, attacker):
    def cached(client):
        return client.made(LONG)["usage"]["input_tokens_details"]["cached_tokens"]

    json_llm.parts.caches.clear()
    alice, eve = Client(shared), Client(shared, **attacker)
    alice.made(LONG)
    assert cached(eve) == 0
    assert cached(eve) > 40, "its own it finds"
    assert cached(alice) > 40


def test_nothing_of_the_prompt_cache_is_left_by_a_request_that_asks_for_none(json_llm, shared):
    json_llm.parts.caches.clear()
    Client(shared).made(LONG, cache_prompt=False)
    assert json_llm.parts.caches.kept == 0


@pytest.mark.parametrize("path", ["../models", "%2e%2e/models", "x" * 5000, "resp_", "*", "resp_%00", "resp_%ff"])
def test_no_id_leads_elsewhere(shared, path):
    assert Client(shared).ask("DELETE", path).status_code in (404, 405)
    assert Client(shared).ask("GET", f"{path}/input_items").status_code == 404


def test_a_salt_in_a_query_is_bounded(shared):
    assert Client(shared, salt="x" * 257).ask("GET", "resp_0").status_code == 400

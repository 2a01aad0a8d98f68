"""A page of a server with several models."""

from __future__ import annotations

from functools import partial

from page_actions import bodies_of, say, set_up
from serving import running

from outrider.server.host import Host
from outrider.server.model_set import ModelSet
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.slot import About, Slot


def test_a_model_is_chosen_and_loaded_by_the_first_message(open_page, served_llm):
    host = Host()

    def load(llm, slot, _shares, _check):
        return Service(llm, Scheduler(llm, finished=slot.metrics.finished), host, name=slot.name)

    slots = [Slot([name], partial(load, served_llm), about=About(256, chat=True)) for name in ("red", "green")]
    with running(ModelSet(slots, host)) as base:
        page = open_page(base)
        assert page.locator("#models option").all_inner_texts() == ["red", "green"]
        page.select_option("#models", "green")
        page.wait_for_selector("text=green, context 256, not loaded: the first request loads it")
        bodies = bodies_of(page)
        set_up(page, chat_max_tokens=4, temperature=0)
        say(page, "hello")
        assert bodies[0]["model"] == "green"
        assert page.locator("#model").inner_text().startswith("green, context 256, drafts by ")
        assert [slot.state for slot in slots] == ["unloaded", "ready"]
        page.reload()
        page.wait_for_selector("text=green, context 256, drafts by")


def test_one_model_is_not_offered_for_choice(open_page):
    assert open_page().locator("#models").is_hidden()

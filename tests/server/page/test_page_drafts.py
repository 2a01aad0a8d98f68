"""Drafts on the page: marks, figures, and two answers side by side."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from page_actions import answer_with, ask, bodies_of, chunk, figure, finished, set_up, stream
from serving import serving

from outrider.engine.outputs import RequestStats, TargetPass


def _settled(server):
    until = time.monotonic() + 10
    while server.scheduler.counts != (0, 0):
        assert time.monotonic() < until, "a place was not freed"
        time.sleep(0.01)


def _text_of(response):
    events = [json.loads(line[6:]) for line in response.text().split("\n\n") if line.startswith("data: {")]
    return "".join(event["choices"][0]["text"] for event in events), events


def test_an_answer_with_its_marks(open_page, drafted):  # noqa: ARG001
    page = open_page()
    with page.expect_response("**/v1/completions") as response:
        ask(page)
    text, events = _text_of(response.value)
    stats = events[-1]["outrider"]["stats"]
    assert page.locator(".answer").inner_text() == text
    for source in ("lookup", "mtp"):
        assert page.locator(f"mark[data-source={source}]").count() == stats["accepted_by_source"][source] > 0
    assert page.locator("mark:not(.corrected)").count() == stats["accepted"]
    wrong = [token for event in events for token in event["outrider"]["rejected"] if token is not None]
    assert page.locator("mark.corrected").count() == len(wrong) > 0
    assert figure(page, "tokens") == "30"
    rate = round(100 * stats["acceptance_rate"])
    assert figure(page, "accepted") == f"{stats['accepted']} of {stats['drafted']} ({rate} %)"
    assert float(figure(page, "perPass")) == pytest.approx(stats["tokens_per_pass"], abs=0.006)
    assert float(figure(page, "speed")) == pytest.approx(stats["decode_tokens_per_second"], abs=0.06)
    # More than colour tells them apart.
    styles = page.evaluate(
        "[...document.querySelectorAll('#legend .sample')].map(e => getComputedStyle(e).textDecorationStyle)"
    )
    assert len(set(styles)) == len(styles) == 4


def test_a_chat_marks_the_same_tokens_formatted_and_token_by_token(open_page, drafted):  # noqa: ARG001
    page = open_page()
    ask(page, mode="chat")
    marks = page.locator(".markdown mark")
    formatted = [(m.get_attribute("data-source"), m.inner_text().strip()) for m in marks.all()]
    assert len(formatted) > 5
    page.click("button:text('Tokens')")
    assert page.locator("button:text('Tokens')").get_attribute("aria-pressed") == "true"
    plain = page.locator(".plain mark")
    assert [(m.get_attribute("data-source"), m.inner_text().strip()) for m in plain.all()] == formatted
    page.click("button:text('Tokens')")
    assert page.locator(".markdown mark").count() == len(formatted)


def test_what_had_been_drafted_is_seen_under_the_pointer(open_page, drafted):  # noqa: ARG001
    page = open_page()
    ask(page)
    tip = page.locator("#tip")
    assert tip.is_hidden()
    page.locator("mark.corrected").first.hover()
    assert re.fullmatch(r"“.+” was drafted here; the model chose “.+”", tip.inner_text())
    page.mouse.move(1, 1)
    assert tip.is_hidden()
    page.locator("mark:not(.corrected)").first.hover()
    assert re.fullmatch(r"drafted by .+, and accepted", tip.inner_text())


def test_tokens_appear_as_they_come_and_stop_cancels(open_page, served_llm, slow):  # noqa: ARG001
    with serving(served_llm) as (base, server):
        page = open_page(base)
        ask(page, tokens=200, drafting="both", wait=False)
        page.locator(".answer").filter(has_text=re.compile(".{6}")).wait_for()
        assert server.scheduler.counts == (1, 0)
        page.locator("[data-figure=perPass]").filter(has_text=re.compile("[0-9]")).wait_for()
        page.click("#stop")
        finished(page)
        _settled(server)
        assert re.fullmatch(r"Stopped after \d+ tokens\.", page.locator("#status").inner_text())
        assert 3 < int(figure(page, "tokens")) < 200
        assert "Not finished." in page.locator(".panel").nth(0).inner_text()
        assert "Not run." in page.locator(".panel").nth(1).inner_text()
        # And the next one runs.
        ask(page, tokens=3)
        assert "Finished: 3 tokens" in page.locator("#status").inner_text()


def test_both_run_one_after_the_other_and_are_shown_to_be_equal(open_page):
    page = open_page()
    order = bodies_of(page)
    page.on("requestfinished", lambda request: "completions" in request.url and order.append("finished"))
    page.select_option("#mode", "completion")
    page.select_option("#drafting", "both")
    set_up(page, seed=7, temperature=0.8, completion_max_tokens=30)
    page.fill("#prompt", "abab" * 10)
    page.click("#run")
    finished(page)
    with_drafts, end, without, *_ = order
    assert end == "finished"
    assert (with_drafts.pop("drafting"), without.pop("drafting")) == ("auto", "off")
    assert with_drafts == without
    assert with_drafts["cache_prompt"] is False
    assert "draws on this request alone" in page.locator("#both-note").inner_text()
    assert (with_drafts["seed"], with_drafts["temperature"]) == (7, 0.8)
    assert page.locator(".equality").inner_text() == "identical: 30 of 30 tokens"
    assert page.locator("#status").inner_text() == "Finished: identical: 30 of 30 tokens."
    left, right = page.locator(".answer").all_inner_texts()
    assert left == right
    assert page.locator(".panel").nth(1).locator("mark").count() == 0
    assert re.search(r" as fast.* m?s instead of .* m?s\.$", page.locator(".ratio").inner_text())
    assert re.fullmatch(r"on\s+[\d.]+ m?s\s+[\d.]+\s+\d+", page.locator("tbody tr").first.inner_text())


def test_a_difference_is_said_and_shown(open_page):
    page = open_page()

    def falsify(route):
        if route.request.post_data_json["drafting"] == "auto":
            route.continue_()
            return
        text = route.fetch().text()
        events = [json.loads(event[6:]) for event in text.split("\n\n") if event.startswith("data: {")]
        events[5]["outrider"]["token_ids"][0] += 1
        events[5]["outrider"]["texts"][0] = events[5]["choices"][0]["text"] = "wrong"
        route.fulfill(body=stream(*events), content_type="text/event-stream")

    page.route("**/v1/completions", falsify)
    ask(page, drafting="both")
    says = page.locator(".equality").inner_text()
    assert re.fullmatch(r"first difference at token 6 of 30: “.+” with drafting, “wrong” without", says)
    assert page.locator(".differs").count() == 2
    assert page.locator(".differs").last.inner_text() == "wrong"


def test_an_end_that_was_chosen_against_a_draft_and_a_half_character(open_page):
    stats = RequestStats(decode_seconds=1.0, passes=[TargetPass(1, 0.5)] * 2, decoded_tokens=2).as_dict()
    parts = [
        ("a ", chunk({}, ["a "])),
        ("", chunk({}, [""], sources=["mtp"])),
        ("\ufffd", chunk({}, [""], reason="stop", rejected=[" the\n"], stats=stats)),
    ]
    for text, part in parts:
        part["choices"][0] = {"text": text, "finish_reason": part["choices"][0]["finish_reason"]}
    page = open_page()
    answer_with(page, stream(*(part for _, part in parts)))
    ask(page)
    assert page.locator(".answer .plain").inner_text() == "a \ufffd"
    page.locator("mark.end").hover()
    assert page.locator("#tip").inner_text() == "“␣the↵” was drafted here; the model chose to end"
    assert page.locator("mark[tabindex]").count() == 1  # nothing to stop at where there is no text


def test_other_requests_that_slow_an_answer_are_mentioned(open_page, served_llm, slow):  # noqa: ARG001
    with serving(served_llm) as (base, server):
        page = open_page(base)
        body = {"prompt": "x", "max_tokens": 200, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{base}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # which ends the request when nobody holds it
            next(lines)
            ask(page, tokens=3)
        assert "Other requests were running" in page.locator(".panel").inner_text()
        _settled(server)
        ask(page, tokens=3)
        assert "Other requests" not in page.locator(".panel").inner_text()

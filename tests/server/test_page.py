"""The page at `/` of a server on a tiny model, in a real browser."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from browser import chromium
from serving import serving

from outrider import SamplingParams
from outrider.drafters.protocol import Drafter
from outrider.engine.outputs import RequestStats, TargetPass

PROMPT = "abab" * 10


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser, url):
    """Opens the page of a server in a window of its own; no page may have had trouble or asked anybody else."""
    contexts, trouble, asked = [], [], []

    def open_at(base=url, *, ready=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        # Chromium reports an answer of 400 or 401 as trouble; to the page it is a thing to show.
        page.on("console", lambda said: said.type == "error" and _is_trouble(said.text) and trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{base}/")
        if ready:
            page.wait_for_selector("#run:enabled")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not trouble
    assert all(re.match(r"http://127\.0\.0\.1:\d+/|data:", address) for address in asked), asked


def _is_trouble(text):
    return not re.match(r"Failed to load resource: the server responded with a status of 4\d\d", text)


def ask(page, prompt=PROMPT, *, tokens=30, drafting="on", wait=True, mode="completion"):
    if page.locator("#modes").is_visible():
        page.check(f"input[name=mode][value={mode}]")
    page.fill("#prompt", prompt)
    page.fill("#max-tokens", str(tokens))
    page.check(f"input[name=drafting][value={drafting}]")
    page.click("#run")
    if wait:
        page.wait_for_selector("#run:enabled")


def figure(page, name):
    return page.locator(f"dd[data-figure={name}]").first.inner_text()


class Scripted(Drafter):
    """Adds to every draft the token of the answer that comes next, and one that does not, if it is `last`."""

    def __init__(self, name, answer, last=False):
        self.name, self._answer, self._last = name, answer, last
        self._prompts = {}

    def open(self, sequence):
        self._prompts[sequence.number] = len(sequence.tokens)

    def propose(self, asks):
        for ask in asks:
            coming = self._answer[len(ask.sequence.tokens) - self._prompts[ask.sequence.number] :]
            for wrong in range(1 + self._last):
                depth = len(ask.draft)
                if depth < min(ask.budget, len(coming)):
                    ask.draft.add(depth - 1, coming[depth] ^ wrong, 0.5, self.name)

    def close(self, sequence):
        self._prompts.pop(sequence.number, None)


@pytest.fixture
def drafted(served_llm, url, monkeypatch):  # noqa: ARG001
    """Drafts for PROMPT that no measurement sizes: two right tokens, each from another source, and a wrong one."""
    out = served_llm.generate(PROMPT, SamplingParams(max_tokens=60, draft="off"))[0]
    planner = served_llm.parts.engine.planner
    names = ("mtp", "lookup")
    drafters = [Scripted(name, out.token_ids, last=name == "lookup") for name in names]
    monkeypatch.setattr(planner, "drafters", drafters)
    monkeypatch.setattr(planner, "_keep_worthwhile", lambda *_: None)


def _settled(server):
    until = time.monotonic() + 10
    while server.scheduler.counts != (0, 0):
        assert time.monotonic() < until, "a place was not freed"
        time.sleep(0.01)


# -- the files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page/page.css", "text/css"), ("/page/page.js", "text/javascript")],
)
def test_files_have_their_types_and_a_strict_policy(url, path, kind):
    found = httpx.get(url + path)
    assert found.status_code == 200
    assert found.headers["content-type"] == f"{kind}; charset=utf-8"
    assert found.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in found.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert httpx.post(url + path).status_code == 405
    # Nothing from elsewhere; a namespace is a name, no address.
    assert "//" not in found.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_no_script_and_no_style_is_inline(url):
    text = httpx.get(url).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_the_page_needs_no_key_and_no_other_file_can_be_had(served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        assert httpx.get(base).status_code == 200
        for path in ("/page/__init__.py", "/page/../app.py", "/page/%2e%2e/app.py", "/page/"):
            assert httpx.get(base + path).status_code == 404


# -- in the browser --------------------------------------------------------------------------------------------------


def test_an_answer_with_its_marks(open_page, drafted):  # noqa: ARG001
    page = open_page()
    with page.expect_response("**/v1/completions") as response:
        ask(page)
    events = [json.loads(line[6:]) for line in response.value.text().split("\n\n") if line.startswith("data: {")]
    text = "".join(event["choices"][0]["text"] for event in events)
    stats = events[-1]["outrider"]["stats"]
    assert page.locator(".answer").inner_text() == text
    for source in ("lookup", "mtp"):
        assert page.locator(f"mark.{source}").count() == stats["accepted_by_source"][source] > 0
    assert page.locator("mark:not(.corrected)").count() == stats["accepted"]
    wrong = [token for event in events for token in event["outrider"]["rejected"] if token is not None]
    assert page.locator("mark.corrected").count() == len(wrong) > 0
    assert figure(page, "tokens") == "30"
    assert figure(page, "accepted") == f"{stats['accepted']} of {stats['drafted']}"
    assert float(figure(page, "perPass")) == pytest.approx(stats["tokens_per_pass"], abs=0.006)
    assert float(figure(page, "speed")) == pytest.approx(stats["decode_tokens_per_second"], abs=0.06)
    # More than colour tells them apart.
    styles = page.evaluate(
        "[...document.querySelectorAll('#legend li > span')].map(e => getComputedStyle(e).textDecorationStyle)"
    )
    assert len(set(styles)) == len(styles) == 3


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
        page.locator(".answer > *").nth(4).wait_for(state="attached")
        assert server.scheduler.counts == (1, 0)
        assert page.locator("#stop").is_enabled()
        assert figure(page, "perPass") != "–"
        page.click("#stop")
        page.wait_for_selector("#run:enabled")
        _settled(server)
        assert re.fullmatch(r"Stopped after \d+ tokens\.", page.locator("#status").inner_text())
        assert 3 < page.locator(".answer > *").count() < 200
        assert "Stopped before its first token." in page.locator(".panel").nth(1).inner_text()
        # And the next one runs.
        ask(page, tokens=3)
        assert "Finished: 3 tokens" in page.locator("#status").inner_text()


def test_both_run_one_after_the_other_and_are_shown_to_be_equal(open_page):
    page = open_page()
    order = []
    page.on("request", lambda request: "completions" in request.url and order.append(request.post_data_json))
    page.on("requestfinished", lambda request: "completions" in request.url and order.append("finished"))
    page.fill("#temperature", "0.8")
    page.fill("#seed", "7")
    ask(page, drafting="both")
    with_drafts, end, without, _ = order
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
        events = route.fetch().text().split("\n\n")
        chunk = json.loads(events[5][6:])
        chunk["outrider"]["token_ids"][0] += 1
        chunk["outrider"]["texts"][0] = "wrong"
        events[5] = f"data: {json.dumps(chunk)}"
        route.fulfill(body="\n\n".join(events), content_type="text/event-stream")

    page.route("**/v1/completions", falsify)
    ask(page, drafting="both")
    says = page.locator(".equality").inner_text()
    assert re.fullmatch(r"first difference at token 6 of 30: “.+” with drafting, “wrong” without", says)
    assert page.locator(".differs").count() == 2
    assert page.locator(".differs").last.inner_text() == "wrong"


def scripted(page, *parts, end="data: [DONE]\n\n"):
    """The server answers with these (text, marks, finish reason)."""
    events = [
        {
            "choices": [{"text": text, "finish_reason": reason}],
            "outrider": {"token_ids": [1] * len(marks["texts"]), **marks},
        }
        for text, marks, reason in parts
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end
    page.route("**/v1/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def test_an_end_that_was_chosen_against_a_draft_and_a_half_character(open_page):
    stats = RequestStats(decode_seconds=1.0, passes=[TargetPass(1, 0.5)] * 2, decoded_tokens=2).as_dict()
    first = {"texts": ["a "], "sources": [None], "rejected_texts": [None]}
    half = {"texts": [""], "sources": ["mtp"], "rejected_texts": [None]}
    end = {"texts": [""], "sources": [None], "rejected_texts": [" the\n"], "stats": stats}
    page = open_page()
    scripted(page, ("a ", first, None), ("", half, None), ("\ufffd", end, "stop"))
    ask(page)
    assert page.locator(".answer").inner_text() == "a \ufffdend"
    page.locator("mark.end").hover()
    assert page.locator("#tip").inner_text() == "“␣the↵” was drafted here; the model chose to end"
    assert page.locator("mark[tabindex]").count() == 1  # nothing to stop at where there is no text


def test_a_stream_that_breaks_off_is_an_error_and_its_text_stays(open_page):
    page = open_page()
    scripted(page, ("abc", {"texts": ["abc"], "sources": [None], "rejected_texts": [None]}, None), end="")
    ask(page)
    assert page.locator("#error").inner_text().startswith("The stream ended early\n")
    assert page.locator(".answer").inner_text() == "abc"
    assert "Not finished." in page.locator(".panel").inner_text()


def test_company_is_owned_up_to(open_page, served_llm, slow):  # noqa: ARG001
    with serving(served_llm) as (base, server):
        page = open_page(base)
        body = {"prompt": "x", "max_tokens": 200, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{base}/v1/completions", json=body) as stream:
            lines = stream.iter_lines()  # which ends the request when nobody holds it
            next(lines)
            ask(page, tokens=3)
        assert "Other requests were in work" in page.locator(".panel").inner_text()
        _settled(server)
        ask(page, tokens=3)
        assert "Other requests" not in page.locator(".panel").inner_text()


def test_what_a_model_says_stays_text(open_page, drafted, served_llm, monkeypatch):  # noqa: ARG001
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    monkeypatch.setattr(served_llm.tokenizer, "piece", lambda _token, **_: evil.encode())
    page = open_page()
    ask(page, prompt=evil + PROMPT, tokens=12, drafting="both")
    assert page.locator(".answer").first.inner_text() == evil * 12
    assert page.locator(".asked").inner_text() == evil + PROMPT
    page.locator("mark").first.hover()
    assert page.locator("#tip").is_visible()
    assert page.locator("#results img, #results script, #tip *").count() == 0
    assert page.title() == "tiny – outrider"


def test_the_keyboard_is_enough(open_page, drafted):  # noqa: ARG001
    page = open_page()
    page.check("input[value=completion]")
    page.locator("#prompt").focus()
    page.keyboard.type(PROMPT)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
    assert reached[:5] == ["temperature", "max-tokens", "seed", "on", "run"]
    page.locator("#run").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run:enabled")
    assert page.evaluate("document.activeElement.id") == "run"
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.evaluate("e => e.tagName") == "MARK"
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert focused.get_attribute("aria-describedby") == "tip"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert "was drafted here; the model chose" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert tip.is_visible()
    assert page.locator('mark[tabindex="0"]').count() == 1  # one Tab stop, however many marks
    page.locator("#prompt").focus()
    assert tip.is_hidden()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stop:disabled")


def test_a_screen_reader_is_told_of_runs_and_not_of_tokens(open_page):
    page = open_page()
    page.evaluate(
        """() => {
          window.said = [];
          const status = document.getElementById("status");
          new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    ask(page, drafting="both")
    assert page.evaluate("said") == [
        "Running with drafting …",
        "Running without drafting …",
        "Finished: identical: 30 of 30 tokens.",
    ]
    live = "[aria-live], [role=status], [role=alert], [role=log]"
    assert page.evaluate(f"[...document.querySelectorAll('.answer, dl')].some(e => e.closest('{live}'))") is False
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].filter(e => !e.labels.length).map(e => e.id)"
    )
    assert unnamed == []


def test_turns_of_a_conversation(open_page):
    page = open_page()
    assert page.locator("input[value=chat]").is_checked()
    bodies = []
    page.on("request", lambda request: "chat/completions" in request.url and bodies.append(request.post_data_json))
    page.fill("#max-tokens", "12")
    page.locator("#prompt").focus()
    for number, text in enumerate(("first", "second")):
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        page.locator(".turn").nth(number).wait_for()
        page.wait_for_selector("#run:enabled")
    answer = page.locator(".answer").first.inner_text()
    assert [message["content"] for message in bodies[1]["messages"]] == ["first", answer, "second"]
    assert page.locator(".asked").all_inner_texts() == ["first", "second"]
    page.click("#clear")
    assert page.locator(".turn").count() == 0
    ask(page, "third", tokens=3, mode="chat")
    assert [message["content"] for message in bodies[2]["messages"]] == ["third"]


def test_a_base_model_completes_and_the_page_says_so(open_page, served_llm, monkeypatch):
    monkeypatch.setattr(served_llm.parts.prompts, "template", None)
    page = open_page()
    assert page.locator("#modes").is_hidden()
    assert "base model without a chat template" in page.locator("#base-note").inner_text()
    ask(page, tokens=5)
    assert "Finished: 5 tokens" in page.locator("#status").inner_text()


def test_the_key_is_asked_for_and_kept_in_memory_only(open_page, served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        page = open_page(base, ready=False)
        page.wait_for_selector("#key-form:visible")
        missing = "the API key is missing or wrong: send it as a bearer token"
        assert page.locator("#error").inner_text() == f"401 authentication_error\n{missing}"
        page.keyboard.type("wrong")  # the field has the focus
        with page.expect_response("**/v1/models"):
            page.keyboard.press("Enter")
        assert page.locator("#run").is_disabled()
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#run:enabled")
        assert page.locator("#error").inner_text() == ""
        ask(page, tokens=5)
        assert "Finished: 5 tokens" in page.locator("#status").inner_text()
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
        assert kept == [0, 0, "", f"{base}/"]
        assert "secret" not in page.content()
        page.reload()
        page.wait_for_selector("#key-form:visible")
        assert page.locator("#key").input_value() == ""


def test_errors_are_shown_as_the_api_says_them(open_page, served_llm, monkeypatch):
    page = open_page()
    ask(page, "x" * 300)
    said = page.locator("#error").inner_text()
    assert said.startswith("400 invalid_request_error\n")
    assert "leaves no room in a context of 256" in said
    assert page.locator("#error").get_attribute("role") == "alert"
    ask(page, tokens=3)  # and is gone with the next answer
    assert page.locator("#error").inner_text() == ""
    with serving(served_llm, running=1, waiting=-1) as (base, _):  # full from the start
        page = open_page(base)
        ask(page)
        said = page.locator("#error").inner_text()
        assert said.startswith("429 rate_limit_error\n")
        assert said.endswith("(try again in 5 s)")
    step = served_llm.parts.engine.step

    def broken():
        if served_llm.parts.engine._running:
            raise RuntimeError("out of luck")
        step()

    monkeypatch.setattr(served_llm.parts.engine, "step", broken)
    page = open_page()
    ask(page)
    assert page.locator("#error").inner_text() == "server_error\nthe pass failed: out of luck"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_light_and_dark(open_page, drafted, scheme):  # noqa: ARG001
    page = open_page(viewport={"width": 360, "height": 640}, color_scheme=scheme, reduced_motion="reduce")
    ask(page, drafting="both")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#stop").is_visible()
    low = page.evaluate(
        """() => {
          const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const light = (colour) => {
            const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            const [r, g, b] = rgb(colour).map(v => linear(v / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (e) => {
            const colour = getComputedStyle(e).backgroundColor;
            return rgb(colour)[3] === 0 && e.parentElement ? ground(e.parentElement) : colour;
          };
          const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
          const low = [];
          for (const e of document.querySelectorAll("body *")) {
            if (!e.checkVisibility() || !e.textContent.trim()) continue;
            const style = getComputedStyle(e);
            if (contrast(style.color, ground(e)) < 4.5) low.push([e.outerHTML, style.color, ground(e)]);
            const line = style.textDecorationLine === "underline" ? style.textDecorationColor : style.color;
            if (contrast(line, ground(e)) < 3) low.push([e.outerHTML, line, ground(e)]);
          }
          return low;
        }"""
    )
    assert low == []
    assert page.evaluate("document.getAnimations().length") == 0

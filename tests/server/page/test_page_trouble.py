"""Keys and errors on the page."""

from __future__ import annotations

from page_actions import answer_with, ask, chunk, finished, say, stream
from serving import serving


def _asked_for_a_key(open_page, base):
    page = open_page(base, ready=False)
    page.wait_for_selector("#key-form:visible")
    return page


def test_the_key_is_asked_for_and_kept_in_its_tab(open_page, served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        page = _asked_for_a_key(open_page, base)
        missing = "the API key is missing or wrong: send it as a bearer token or as x-api-key"
        assert page.locator("#error").inner_text() == f"401 invalid_api_key\n{missing}"
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
        assert "secret" not in page.content()
        kept = page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href]")
        assert "secret" not in kept[0]
        assert kept[1:] == ["", f"{base}/"]
        page.reload()
        page.wait_for_selector("#run:enabled")
        _asked_for_a_key(open_page, base)  # of another window
        page.click("#open-settings")
        page.click("#forget-key")
        page.wait_for_selector("#key-form:visible")
        assert "secret" not in page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")


def test_a_key_is_remembered_by_the_browser_if_asked_to(open_page, served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        page = _asked_for_a_key(open_page, base)
        page.check("#remember-key")
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#run:enabled")
        other = page.context.new_page()
        other.goto(base)
        other.wait_for_selector("#run:enabled")


def test_errors_are_shown_as_the_api_says_them(open_page, served_llm, break_passes):
    page = open_page()
    ask(page, "x" * 300)
    said = page.locator("#error").inner_text()
    assert said.startswith("400 ")
    assert "256" in said
    assert page.locator("#error").get_attribute("role") == "alert"
    assert page.locator("#prompt").input_value() == "x" * 300  # to be shortened
    assert page.locator(".turn").count() == 0
    ask(page, tokens=3)  # and is gone with the next answer
    assert page.locator("#error").inner_text() == ""
    with serving(served_llm, running=1, waiting=-1) as (base, _):  # full from the start
        page = open_page(base)
        ask(page)
        said = page.locator("#error").inner_text()
        assert said.startswith("429 rate_limit_exceeded\n")
        assert said.endswith("(try again in 5 s)")
    break_passes()
    page = open_page()
    ask(page)
    assert page.locator("#error").inner_text() == "server_error\nthe pass failed: out of luck"


def test_a_stream_that_breaks_off_is_an_error_and_its_text_stays(open_page):
    page = open_page()
    answer_with(page, stream(chunk({"content": "abc"}, ["abc"]), end=""))
    say(page, "question")
    assert page.locator("#error").inner_text().startswith("The stream ended early\n")
    assert page.locator(".answer").inner_text() == "abc"
    assert "Not finished." in page.locator(".panel").inner_text()


def test_a_server_that_is_gone_loses_no_message(open_page):
    page = open_page()
    page.route("**/*", lambda route: route.abort())
    say(page, "question")
    assert page.locator("#error").inner_text().startswith("The server cannot be reached\n")
    assert page.locator("#prompt").input_value() == "question"
    page.unroute_all()
    page.click("#run")
    finished(page)
    assert page.locator("#error").inner_text() == ""
    assert page.locator(".said").inner_text() == "question"


def test_the_model_can_be_asked_for_again(open_page, url):
    page = open_page(url)
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    page.click("#error button:text('Try again')")
    page.wait_for_selector("#error button")
    page.unroute_all()
    page.click("#error button:text('Try again')")
    page.wait_for_selector("#run:enabled")
    assert page.locator("#error").inner_text() == ""

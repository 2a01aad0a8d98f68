"""Streamed text on a terminal: words stay whole, thoughts are dim."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from outrider.cli.screen import AnswerText, WordWrap

TEXTS = st.text(alphabet="ab \n\u4f60\u597d", max_size=120)


def wrapped(text: str, columns: int, piece: int = 3) -> str:
    wrap = WordWrap(lambda: columns)
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    return "".join(wrap.push(part) for part in pieces) + wrap.flush()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("the quick brown fox", ["the quick", "brown fox"]),
        ("  indented words here", ["  indented", "words here"]),
        ("unbreakableword ab", ["unbreakableword ab"]),  # its end is on the terminal's second line
        ("ab unbreakableword", ["ab", "unbreakableword"]),
        ("\u4f60\u597d\u4f60\u597d\u4f60\u597d", ["\u4f60\u597d\u4f60\u597d\u4f60", "\u597d"]),
        ("a\tb cd", ["a\tb", "cd"]),
        ("ten chars!\nnext", ["ten chars!", "next"]),
    ],
)
def test_lines_break_between_words(text, lines):
    assert wrapped(text, 10).split("\n") == lines


@given(TEXTS, st.integers(1, 7), st.integers(4, 30))
def test_wrapping_changes_blanks_alone_and_not_with_the_pieces(text, piece, columns):
    shown = wrapped(text, columns, piece)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)
    if all(cell_len(word) < columns for word in re.findall(r"[ab]+", text)):
        assert shown == wrapped(text, columns, 1)
        assert all(cell_len(line) <= columns for line in shown.split("\n") if not line.startswith(" "))
        assert re.findall(r"[ab]+", shown) == re.findall(r"[ab]+", text)


def test_colours_take_no_room():
    assert wrapped("\033[32mthe\033[0m quick\033[33m brown\033[0m", 9, 4).split("\n") == [
        "\033[32mthe\033[0m quick\033[33m",
        "brown\033[0m",
    ]


def test_the_width_is_read_anew():
    columns = [80]
    wrap = WordWrap(lambda: columns[0])
    first = wrap.push("the quick ")
    columns[0] = 10
    assert first + wrap.push("brown fox") + wrap.flush() == "the quick\nbrown fox"


def test_a_long_word_is_not_held_back_to_its_end():
    wrap = WordWrap(lambda: 10)
    assert "".join(wrap.push("x" * 4) for _ in range(10)) == "x" * 36


def test_thoughts_are_dim_and_stand_apart():
    text = AnswerText(None)
    shown = text.render("hm", "") + text.render(" well", "") + text.render("", "4") + text.render("", " degrees")
    assert shown + text.flush() == "\033[2mhm well\033[0m\n\n4 degrees"


def test_a_thought_that_is_cut_off_leaves_nothing_dim():
    text = AnswerText(None)
    assert text.render("hm", "") + text.flush() == "\033[2mhm\033[0m"

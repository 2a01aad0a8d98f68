from __future__ import annotations

from drafters.sequences import proposed, sequence

from outrider.drafters import history
from outrider.drafters.history import HistoryDrafter


def test_history_proposes_what_earlier_requests_said():
    drafter = HistoryDrafter(capacity=100)
    first, second = sequence(1, [5, 6, 7, 8, 9, 10]), sequence(2, [3, 5, 6, 7])
    drafter.open(first)
    drafter.open(second)
    drafter.close(first)
    assert proposed(drafter, second, 4) == [8, 9, 10]  # and nothing beyond that text's end
    assert proposed(drafter, second, 2) == [8, 9]
    second.tokens += [8, 4, 4]
    assert proposed(drafter, second, 4) == []
    drafter.close(second)


def kept_tokens(drafter: HistoryDrafter) -> int:
    kept = sum(len(index) for generations in drafter._generations.values() for index in generations)
    assert kept == drafter._kept
    return kept


def say(drafter: HistoryDrafter, number: int, tokens: list[int], scope: str | None) -> None:
    text = sequence(number, tokens, scope)
    drafter.open(text)
    drafter.close(text)


def drafted_after(drafter: HistoryDrafter, tokens: list[int], scope: str | None) -> list[int]:
    text = sequence(99, tokens, scope)
    drafter.open(text)
    found = proposed(drafter, text, 4)
    drafter._readings.pop(99, None)  # it leaves nothing behind
    return found


def test_histories_of_different_scopes_are_separate():
    drafter = HistoryDrafter(capacity=100)
    say(drafter, 1, [5, 6, 7, 8, 9], "a")
    say(drafter, 2, [5, 6, 7, 1, 2], "b")
    assert drafted_after(drafter, [5, 6, 7], "a") == [8, 9]
    assert drafted_after(drafter, [5, 6, 7], "b") == [1, 2]
    assert drafted_after(drafter, [5, 6, 7], "c") == []


def test_a_sequence_without_a_scope_neither_reads_nor_leaves_history():
    drafter = HistoryDrafter(capacity=100)
    say(drafter, 1, [5, 6, 7, 8, 9], None)
    assert kept_tokens(drafter) == 0
    assert drafted_after(drafter, [5, 6, 7], "") == []
    say(drafter, 2, [5, 6, 7, 8, 9], "")
    assert drafted_after(drafter, [5, 6, 7], None) == []
    assert drafted_after(drafter, [5, 6, 7], "") == [8, 9]


def test_many_scopes_share_one_bound_and_the_least_recently_used_goes():
    drafter = HistoryDrafter(capacity=60)
    for number in range(200):
        say(drafter, number, [1, 2, 3, number], f"scope {number}")
        assert drafted_after(drafter, [1, 2, 3], "scope 0") == [0], "it is used again and again"
        assert kept_tokens(drafter) <= 60
        assert len(drafter._generations) <= 12
    assert drafted_after(drafter, [1, 2, 3], "scope 199") == [199]
    assert drafted_after(drafter, [1, 2, 3], "scope 100") == []


def test_scopes_are_bounded_however_short_their_texts(monkeypatch):
    monkeypatch.setattr(history, "_MOST_SCOPES", 10)
    drafter = HistoryDrafter(capacity=1000)
    for number in range(50):
        say(drafter, number, [number], f"scope {number}")
    assert len(drafter._generations) == 10


def test_a_history_without_room_keeps_nothing():
    drafter = HistoryDrafter(capacity=3)
    say(drafter, 1, [5, 6, 7, 8], "")
    assert kept_tokens(drafter) == 0


def test_history_is_bounded_and_forgets_the_oldest():
    drafter = HistoryDrafter(capacity=40)
    for number in range(50):
        say(drafter, number, [100 + number, 200 + number, 300 + number, 400 + number, 7], "")
        assert kept_tokens(drafter) <= 40
        assert len(drafter._generations[""]) <= 2
    for number, known in ((49, True), (0, False)):
        text = sequence(99, [100 + number, 200 + number, 300 + number])
        drafter.open(text)
        assert bool(proposed(drafter, text, 2)) == known
        drafter.close(text)


def test_one_long_text_does_not_exceed_the_history():
    drafter = HistoryDrafter(capacity=40)
    say(drafter, 1, list(range(1000)), "")
    assert kept_tokens(drafter) <= 40
    text = sequence(2, [990, 991, 992])
    drafter.open(text)
    assert proposed(drafter, text, 3) == [993, 994, 995]

"""Thoughts in an answer: how many tokens they take, the budget that closes them, and the form that follows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from outrider.errors import UsageError
from outrider.sampling.constraint import Constraint, Mask, PackedMask


@dataclass(frozen=True)
class Thoughts:
    """How an answer's thoughts are written; `SamplingParams(thoughts=...)` takes it.

    Args:
        begin, end: the control tokens around a thought.
        opened: the prompt ends within a thought.
        budget: most tokens of thoughts; then the thought is closed, and no other begins. None for no limit, 0 for no
            thought.

    Raises:
        UsageError: the budget is negative.
    """

    begin: int
    end: int
    opened: bool = False
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise UsageError(f"the thinking budget must be 0 (no thought) or more tokens, not {self.budget}")


@dataclass(frozen=True)
class ThoughtState:
    """Where an answer is.

    Attributes:
        inside: within a thought.
        tokens: those of thoughts so far, without their control tokens.
        in_form: past the thought that comes first, if one does.
    """

    inside: bool
    tokens: int = 0
    in_form: bool = False

    def after(self, token: int, thoughts: Thoughts) -> ThoughtState:
        """After one more token."""
        if not self.inside:
            return replace(self, inside=True) if token == thoughts.begin else replace(self, in_form=True)
        if token == thoughts.end:
            return replace(self, inside=False, in_form=True)
        return replace(self, tokens=self.tokens + 1)


class ThoughtConstraint:
    """What one request's thoughts allow. As `Constraint`, a function of the parameters and the pushed tokens alone.

    A form begins after the thought that comes first, if one does. A form that begins with the thought's control token
    describes thoughts itself, and is held to from the beginning, whether a budget of 0 forbids thoughts or not.

    Args:
        form: what the rest of the answer is held to, if anything.
        text: (vocabulary,) bool: tokens that are text. A thought before a form consists of these alone.
    """

    def __init__(self, thoughts: Thoughts, form: Constraint | None, text: Mask) -> None:
        own = form is not None and not thoughts.opened and form.allows(thoughts.begin)
        self._thoughts, self._form, self._text = thoughts, form, text
        self._budget = None if own and thoughts.budget == 0 else thoughts.budget
        self._state = ThoughtState(thoughts.opened, in_form=own)

    @property
    def complete(self) -> bool:
        """Whether nothing can follow: the answer is over."""
        return self._form is not None and not self._state.inside and self._form.complete

    @property
    def problem(self) -> str | None:
        """Why the form's grammar cannot go on, if it cannot."""
        return None if self._form is None else self._form.problem

    def allows(self, token: int) -> bool:
        """Whether `token` may come next. Cheaper than `mask`, and never true where that is not."""
        state, form = self._state, self._form
        if self._spent(state) and (state.inside or token == self._thoughts.begin):
            return bool(self.mask()[token])
        if form is None:
            return True
        if self._outside_form(state, token):
            return not state.inside or token == self._thoughts.end or bool(self._text[token])
        return form.allows(token)

    def mask(self) -> Mask:
        """(vocabulary,) bool: which tokens may come next."""
        found = self._mask(self._state, None if self._form is None else self._form.mask)
        assert found is not None
        return found

    def push(self, token: int) -> None:
        """The token was chosen."""
        if self._form is not None and not self._outside_form(self._state, token):
            self._form.push(token)
        self._state = self._state.after(token, self._thoughts)

    def possible(self, path: Sequence[int]) -> bool:
        """As `Constraint.possible`; False before the form."""
        state, own = self._along(path)
        return self._form is not None and state.in_form and self._form.possible(own)

    def allowed(self, path: Sequence[int], tokens: Iterable[int]) -> list[int]:
        """As `Constraint.allowed`."""
        state, own = self._along(path)
        if self._form is not None and state.in_form and not self._spent(state):
            return self._form.allowed(own, tokens)
        mask = self.after(path)
        return [] if mask is None else [token for token in tokens if mask[token]]

    def after(self, path: Sequence[int]) -> Mask | None:
        """As `mask`, if the tokens of `path` had been chosen too; None if the form does not allow them."""
        (state, own), form = self._along(path), self._form
        return self._mask(state, None if form is None else lambda: form.after(own))

    def forced(self, path: Sequence[int]) -> bytes:
        """As `Constraint.forced`; nothing before the form."""
        state, own = self._along(path)
        return self._form.forced(own) if self._form is not None and state.in_form else b""

    def packed(self, path: Sequence[int]) -> PackedMask | None:
        """As `Constraint.packed`; None before the form."""
        state, own = self._along(path)
        return self._form.packed(own) if self._form is not None and state.in_form else None

    def _along(self, path: Sequence[int]) -> tuple[ThoughtState, list[int]]:
        """Where the tokens of `path` lead, and those of them that belong to the form."""
        state, own = self._state, list[int]()
        for token in path:
            if not self._outside_form(state, token):
                own.append(token)
            state = state.after(token, self._thoughts)
        return state, own

    def _outside_form(self, state: ThoughtState, token: int) -> bool:
        """Whether a token belongs to the thought before the form."""
        return not state.in_form and (state.inside or token == self._thoughts.begin)

    def _spent(self, state: ThoughtState) -> bool:
        return self._budget is not None and state.tokens >= self._budget

    def _mask(self, state: ThoughtState, of_form: Callable[[], Mask | None] | None) -> Mask | None:
        begin, end = self._thoughts.begin, self._thoughts.end
        allowed: Mask | None
        if of_form is None:
            allowed = np.ones(len(self._text), np.bool_)
        elif state.inside and not state.in_form:
            allowed = self._text.copy()
            allowed[end] = True
        elif (allowed := of_form()) is None:
            return None
        elif not state.in_form:
            allowed[begin] = True
        if self._spent(state):
            left = np.zeros_like(allowed) if state.inside else allowed.copy()
            left[end if state.inside else begin] = state.inside and allowed[end]
            # A form that describes thoughts itself may demand one, or not allow it to end here.
            return allowed if state.in_form and not left.any() else left
        return allowed

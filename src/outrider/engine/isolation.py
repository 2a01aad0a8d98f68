"""Isolation of failures: a stage that fails for a batch is repeated for each of its requests alone.

That changes no token: nothing of a failed stage was committed, and rows do not see each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from outrider.drafters.protocol import SequenceState
from outrider.drafters.tree import Draft
from outrider.engine.batch import Slot, VerifiedPass
from outrider.engine.request import Request

_log = logging.getLogger("outrider.engine")


@contextmanager
def failing_alone(request: Request) -> Iterator[None]:
    """Turns an exception into the end of the request; see `Request.error`."""
    try:
        yield
    except Exception as error:
        _log.error("request %d failed", request.number, exc_info=error)
        request.error = error


def verified(run: Callable[[list[Slot]], VerifiedPass], slots: list[Slot]) -> Iterator[VerifiedPass]:
    """One pass over all slots; if it fails, one for each of them."""
    if len(slots) == 1:
        with failing_alone(slots[0].request):
            passed = run(slots)
        if slots[0].request.error is None:
            yield passed
    elif slots:
        try:
            passed = run(slots)
        except Exception:
            for slot in slots:
                yield from verified(run, [slot])
        else:
            yield passed


def drafts(propose: Callable[[Sequence[SequenceState]], list[Draft]], requests: Sequence[Request]) -> list[Draft]:
    """The drafts of all requests; if drafting fails, of each alone, and none for those that it fails for."""
    try:
        return propose([request.state for request in requests])
    except Exception:
        found = [Draft() for _ in requests]
        for number, request in enumerate(requests):
            with failing_alone(request):
                (found[number],) = propose([request.state])
        return found

"""What the drafters of one request keep of it in the pages of the prefix cache."""

from __future__ import annotations

from collections.abc import Sequence

from outrider.backends import cpu
from outrider.cache.states import StatePage, StatePages
from outrider.engine.isolation import failing_alone
from outrider.engine.request import Request
from outrider.speculation.planner import DraftPlanner


class RequestStates:
    """See `cache.states.KeepsStates`. A drafter that fails ends this request alone."""

    def __init__(self, request: Request, planner: DraftPlanner, pages: StatePages) -> None:
        self._request, self._planner, self._pages = request, planner, pages

    def resume(self, length: int, pages: Sequence[Sequence[StatePage | None]]) -> None:
        """Gives the drafters what was kept, and counts the positions of which something was not."""
        page = cpu.PAGE_POSITIONS
        lacking = [min(page, length - index * page) for index, kept in enumerate(pages) if None in kept]
        self._request.stats.reused_without_state = sum(lacking)
        data = [[None if state is None else state.data for state in kept] for kept in pages]
        with failing_alone(self._request):
            self._planner.resume(self._request.state, length, data)

    def of_page(self, index: int) -> Sequence[StatePage | None]:
        """What the drafters keep of a page. Nothing once the request has failed, perhaps before all rows were
        reported."""
        if self._request.error is None:
            with failing_alone(self._request):
                kept = enumerate(self._planner.states(self._request.state, index))
                return [None if data is None else self._pages.page(kind, data) for kind, data in kept]
        return [None] * len(self._pages.kinds)

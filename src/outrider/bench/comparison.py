"""One prompt, decoded in every way that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outrider.bench.prompt import Prompt
from outrider.bench.usual_pace import Gauges

if TYPE_CHECKING:
    from outrider import RequestOutput


@dataclass(frozen=True)
class Comparison:
    """One prompt, decoded without drafts, with them, and by the peer, close together in time.

    `gauges` are, by arm, the seconds of a pass over one row just before it decoded and just after: how fast the machine
    was. The peer's first one is from before its prompt.
    """

    prompt: Prompt
    plain: RequestOutput
    drafted: RequestOutput
    peer_tokens_per_second: float | None
    gauges: Mapping[str, Gauges]

    @property
    def identical(self) -> bool:
        """Whether drafting changed nothing but the time."""
        return (self.plain.token_ids, self.plain.finish_reason) == (self.drafted.token_ids, self.drafted.finish_reason)

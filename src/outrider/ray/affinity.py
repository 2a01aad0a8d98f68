"""Which replica answers: the one that has probably computed the beginning of the prompt.

Ray's own `PrefixCacheAffinityRouter` has an internal name, raises on a request without a prompt, and waits for another
process at each request. This one needs no state: requests of one conversation have one key, and rendezvous hashing
(Thaler and Ravishankar, 1998) maps a key to a replica. When replicas come or go, only the keys of those move.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

_PROMPT_CHARACTERS = 512
"""Of a prompt that is no conversation: some 128 tokens, a page of the prefix cache."""


class PrefixRouter(RequestRouter):
    """Routes requests by the first argument of the call: a key, or None for any replica."""

    def initialize_state(self, *, running: int) -> None:
        """running: requests of a replica, from which on others take its share."""
        self._running = running

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All replicas in the order in which to try them."""
        by_load = sorted(candidate_replicas, key=self._load)
        if pending_request is None:
            return [by_load]
        pending_request.routing_context.should_backoff = True
        key, first = pending_request.args[0], by_load[0]
        if key is not None:
            home = max(by_load, key=lambda replica: _score(key, replica.replica_id.unique_id))
            first = home if self._load(home) < self._running else first
        return [[first], *([replica] for replica in by_load if replica is not first)]

    def _load(self, replica: RunningReplica) -> int:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def prefix_key(body: bytes) -> str | None:
    """A key of what a conversation's requests share: all up to its user's first message. None if there is no prompt."""
    try:
        asked = json.loads(body)
        prompt = next(asked[name] for name in ("messages", "input", "prompt") if asked.get(name))
        before = [asked.get(name) for name in ("model", "system", "instructions", "tools")]
        return hashlib.sha256(json.dumps([*before, _beginning(prompt)]).encode()).hexdigest()
    except (ValueError, RecursionError, AttributeError, StopIteration):  # the replica says what is wrong with it
        return None


def _beginning(prompt: Any) -> Any:
    if not isinstance(prompt, list):
        return str(prompt)[:_PROMPT_CHARACTERS]
    roles = [item.get("role") if isinstance(item, dict) else None for item in prompt]
    return prompt[: roles.index("user") + 1] if "user" in roles else str(prompt)[:_PROMPT_CHARACTERS]


def _score(key: str, replica: str) -> bytes:
    return hashlib.sha256(f"{key} {replica}".encode()).digest()

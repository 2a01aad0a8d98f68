"""How many clients a replica serves, and how long they wait.

The formula is that of machine repair: a closed network of clients who pause, and of one server whose rate depends on
the number of requests there (Kleinrock 1975, "Queueing Systems", volume 1, section 3.8). The rate with so many requests
is that of a closed network of its own, in which each is first in its prompt and then decodes (Chandy, Herzog and Woo
1975, "Parametric analysis of queuing networks"). Pauses, prompts and answers are taken as exponentially distributed.
What an arriving client finds is the state of the network without this client (Lavenberg and Reiser 1980, "Stationary
state probabilities at arrival instants for closed queueing networks with multiple types of customers").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from outrider.roofline.speedup import Plan, expected_tokens

_PROMPT_ROWS = 256
"""Rows of a pass over a long prompt."""
_SHARED = 2.0
"""How much longer a prompt or a pass takes beside the other: they share the time equally."""
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Clients:
    """What each client does, again and again.

    Args:
        prompt: tokens of a request that no cache has.
        answer: tokens.
        pause: seconds from an answer to the client's next request.
    """

    prompt: int
    answer: int
    pause: float


@dataclass(frozen=True, order=True)
class Waiting:
    """Seconds that half, and 99 of 100, do not exceed."""

    median: float
    most: float


@dataclass(frozen=True)
class Served:
    """A replica and its clients, on average over time.

    Attributes:
        load: tokens per second over the most that it can give.
        tokens_per_second: of all its clients.
        first_token: from a request to its first token.
        next_token: from one token of an answer to the next; tokens that come at once share the time.
    """

    load: float
    tokens_per_second: float
    first_token: Waiting
    next_token: Waiting


class Replica:
    """One replica: what its passes take with 1, 2, ... requests at once.

    Args:
        running: most requests at once; others wait.
        acceptance: of drafted tokens; None for plain decoding.
    """

    def __init__(self, plan: Plan, clients: Clients, running: int, acceptance: float | None) -> None:
        self.running, self._clients = running, clients
        self.prompt_seconds = clients.prompt * plan.verify_seconds(_PROMPT_ROWS) / _PROMPT_ROWS
        self.token_seconds = [_token_seconds(plan, requests, acceptance) for requests in range(1, running + 1)]
        """Of one of so many requests, while no prompt is computed."""
        self._prompts = [self._in_prompts(requests) for requests in range(running + 1)]
        self._rates = [
            sum(p * self._prompt_rate(prompts, running) for prompts, p in enumerate(states))
            for running, states in enumerate(self._prompts)
        ]

    def served(self, clients: float) -> Served:
        """Load and waiting times with so many clients, at least one; a fraction is the mean over several replicas."""
        states = self._states(clients)
        rate = sum(p * self._rate(here) for here, p in enumerate(states))
        return Served(
            load=rate / self._rate(self.running),
            tokens_per_second=self._clients.answer * rate,
            first_token=_waiting(self._first_token(self._states(max(clients - 1, 0.0)))),
            next_token=_waiting(self._next_token(states)),
        )

    def _in_prompts(self, running: int) -> list[float]:
        """The probability that 0, 1, ... of so many running requests are in their prompts, when each that ends is
        followed by another."""
        weights = [1.0]
        for prompts in range(1, running + 1):
            decoding = running - prompts + 1
            ending = decoding / (self._clients.answer * self.token_seconds[decoding - 1])
            ending /= _SHARED if prompts > 1 else 1.0
            weights.append(weights[-1] * ending / self._prompt_rate(prompts, running))
        return [weight / sum(weights) for weight in weights]

    def _prompt_rate(self, prompts: int, running: int) -> float:
        """Prompts that are through in a second."""
        return (1 / self.prompt_seconds if prompts else 0.0) / (_SHARED if prompts < running else 1.0)

    def _rate(self, here: int) -> float:
        """Requests that end in a second while so many run or wait."""
        return self._rates[min(here, self.running)]

    def _states(self, clients: float) -> list[float]:
        """The probability that 0, 1, ... requests run or wait."""
        logs = [0.0]
        for here in range(1, math.ceil(clients) + 1):
            births = (clients - here + 1) / self._clients.pause
            logs.append(logs[-1] + math.log(births / self._rate(here)))
        weights = [math.exp(log - max(logs)) for log in logs]
        return [weight / sum(weights) for weight in weights]

    def _first_token(self, found: Sequence[float]) -> Callable[[float], float]:
        """The distribution of the time to the first token, by the probability of what an arriving request finds.

        Its prompt is computed at once if fewer than `running` are here, else as soon as enough have ended, which takes
        an Erlang-distributed time. It shares the time with decoding, and with the prompts of others: of those that are
        there half is left on average, and about as many come later.
        """
        full, others = found[self.running :], self.running - 1

        def cdf(seconds: float) -> float:
            total = sum(
                p * of
                for here, p in enumerate(found[: self.running])
                for prompts, of in enumerate(self._prompts[here])
                if self._through(prompts, here) <= seconds
            )
            for prompts, p in enumerate(self._prompts[others]):
                left = self._rate(self.running) * (seconds - self._through(prompts, others))
                if p > _NEGLIGIBLE and left > 0:
                    total += p * sum(of * ended for of, ended in zip(full, _erlang(left), strict=False))
            return total

        return cdf

    def _through(self, prompts: int, others: int) -> float:
        """Seconds of a prompt beside others, of which so many are in their prompts."""
        return (1 + prompts) * self.prompt_seconds * (_SHARED if prompts < others else 1.0)

    def _next_token(self, states: Sequence[float]) -> Callable[[float], float]:
        """The distribution over tokens of the time from one to the next."""
        weighted = []
        for here, p in enumerate(states):
            running = min(here, self.running)
            for prompts, of in enumerate(self._prompts[running][:running]):
                seconds = self.token_seconds[running - prompts - 1] * (_SHARED if prompts else 1.0)
                weighted.append((p * of * (running - prompts) / seconds, seconds))
        total = sum(weight for weight, _ in weighted)
        return lambda limit: sum(weight for weight, seconds in weighted if seconds <= limit) / total


def _token_seconds(plan: Plan, requests: int, acceptance: float | None) -> float:
    drafted = 0 if acceptance is None else plan.best(acceptance, requests).drafted
    return plan.round_seconds(drafted, requests) / expected_tokens(acceptance or 0.0, drafted)


def _erlang(mean: float) -> Iterator[float]:
    """The probability that a Poisson process has 1, 2, ... events where `mean` are expected."""
    log, events, below = -mean, 0, 0.0
    while True:
        below += math.exp(log)
        yield max(1 - below, 0.0)
        events += 1
        log += math.log(mean / events)


def _waiting(cdf: Callable[[float], float]) -> Waiting:
    return Waiting(_quantile(cdf, 0.5), _quantile(cdf, 0.99))


def _quantile(cdf: Callable[[float], float], share: float) -> float:
    """To a thousandth."""
    low, high = 0.0, 1e-3
    while cdf(high) < share:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < share else (low, middle)
    return high

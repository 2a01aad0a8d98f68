"""Fixtures of the command line, on a machine of known speed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from command_line import call, fake

import outrider.loading  # noqa: F401 (it must not meet the fake `open_checkpoint` when it is first imported)
from outrider.bench import passes
from outrider.roofline.hardware import Hardware
from outrider.roofline.work import Matrix, Work

__all__ = ["call", "fake"]


class KnownMachine:
    """Reads 200 MB in 10 ms, and multiplies in no time."""

    def __init__(self, _format, _threads):
        pass

    def sample(self):
        return 0.010, 0.0

    def hardware(self, samples):
        return Hardware("known", 200e6 / samples[0][0], 1e30)


@pytest.fixture(autouse=True)
def known_machine(request, monkeypatch):
    """Wherever the model is a fake one."""
    if "fake" in request.fixturenames:
        monkeypatch.setattr("outrider.checkpoints.open_checkpoint", lambda _path: SimpleNamespace(tensors={}))
        work = Work((Matrix("Q4_0", 10**9, 200_000_000),), (), sweeps=0)
        monkeypatch.setattr(passes, "target_work", lambda _tensors, _config: work)
        monkeypatch.setattr(passes, "Machine", KnownMachine)

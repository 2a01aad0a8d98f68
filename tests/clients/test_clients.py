"""The official OpenAI and Anthropic clients, each in a process of its own; `make clients` runs the others too."""

from __future__ import annotations

import sys

import pytest
from clients.all_clients import HERE, run


@pytest.mark.slow
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_official_client(client, stand_in_url):
    run(sys.executable, HERE / f"python/{client}_client.py", stand_in_url)

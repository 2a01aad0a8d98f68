"""What `outrider serve` makes of its options."""

from __future__ import annotations

import pytest
from command_line import call, fake

from outrider.server import lifecycle

__all__ = ["call", "fake"]


@pytest.fixture
def served(fake, call, monkeypatch):
    """Runs the command up to where it would serve: (LLM's options, server, what it printed)."""
    monkeypatch.delenv("OUTRIDER_API_KEY", raising=False)

    def run(*options):
        servers = []

        def note(app, _scheduler, _limits, listeners):
            servers.append(app)
            for listener in listeners:
                listener.close()

        monkeypatch.setattr(lifecycle, "run_until_stopped", note)
        ran = call("serve", "demo", "--port", "0", *options)
        assert ran.code == 0, ran.err
        return fake.made[-1].options, servers[0], ran.err

    return run


def test_nothing_is_drafted_from_other_requests_unless_asked_for(served):
    assert served()[0]["lookup_history"] == 0
    assert served("--shared-history", "4096")[0]["lookup_history"] == 4096


def test_a_history_without_lookup_is_refused(fake, call):
    ran = call("serve", "demo", "--shared-history", "4096", "--no-lookup")
    assert ran.code == 2
    assert "leave one of them out" in ran.err
    assert fake.made == []


def test_keys_come_from_the_option_and_the_file(served, tmp_path):
    (tmp_path / "keys").write_text("one\ntwo\n")
    _, server, _ = served("--api-key", "zero", "--api-key-file", str(tmp_path / "keys"))
    assert [server.state.service.keys.index(key) for key in (b"zero", b"one", b"two", b"three")] == [0, 1, 2, None]


def test_responses_are_stored_in_memory_or_in_a_folder(served, tmp_path):
    assert served()[1].state.responses.store.folder is None
    assert served("--response-store", str(tmp_path / "kept"))[1].state.responses.store.folder == tmp_path / "kept"
    assert (tmp_path / "kept").is_dir()


def test_a_response_store_that_cannot_be_used_is_refused_before_loading(fake, call, tmp_path):
    (tmp_path / "file").write_text("")
    ran = call("serve", "demo", "--response-store", str(tmp_path / "file"))
    assert ran.code == 2
    assert "check its path" in ran.err
    assert fake.made == []


def test_web_pages_are_kept_out_where_it_listens_on_loopback_without_a_key(served):
    def host(*options):
        return next((guard.kwargs["host"] for guard in served(*options)[1].user_middleware), None)

    assert host() == "127.0.0.1"
    assert host("--host", "localhost") == "localhost"
    assert host("--host", "0.0.0.0") is None
    assert host("--api-key", "secret") is None


def test_the_real_port_is_announced(served):
    _, _, said = served()
    assert "http://127.0.0.1:" in said
    assert ":0/" not in said


@pytest.mark.parametrize("options", [("--api-key", ""), ("--api-key", "a b"), ("--api-key-file", "/no/such/file")])
def test_keys_that_are_none_end_it_before_anything_is_loaded(fake, call, options):
    ran = call("serve", "demo", *options)
    assert ran.code == 2
    assert "key" in ran.err
    assert fake.made == []

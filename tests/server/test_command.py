"""What `outrider serve` makes of its options."""

from __future__ import annotations

import logging
import re
import sys

import pytest
from command_line import call, fake

from outrider.errors import UsageError
from outrider.server import lifecycle

__all__ = ["call", "fake"]


@pytest.fixture(autouse=True)
def log_levels():
    """The command sets them for its process."""
    loggers = [logging.getLogger(name) for name in ("outrider", "outrider.engine")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


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
    assert [server.state.models.host.keys.index(key) for key in (b"zero", b"one", b"two", b"three")] == [0, 1, 2, None]


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
        return served(*options)[1].user_middleware[2].kwargs["loopback"]

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


# -- names -----------------------------------------------------------------------------------------------------------


def test_a_model_is_called_as_it_was_asked_for(tmp_path, monkeypatch):
    from outrider.server.served_models import served_name

    (tmp_path / "gemma-3.1-Q4_0.gguf").touch()
    (tmp_path / "gemma-3.1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert served_name("demo") == "demo"
    assert served_name("google/gemma-3-270m") == "google/gemma-3-270m"
    assert served_name("gemma-3.1-Q4_0.gguf") == "gemma-3.1-Q4_0"
    assert served_name(str(tmp_path / "gemma-3.1")) == "gemma-3.1"
    monkeypatch.chdir("gemma-3.1")
    assert served_name(".") == "gemma-3.1"


def test_other_names(served):
    slot = served("--served-model-name", "a/b", "--served-model-name", "gpt-4")[1].state.models.slots[0]
    assert slot.names == ("a/b", "gpt-4")
    assert served()[1].state.models.slots[0].name == "demo"


def test_the_start_says_what_runs_and_where(served, monkeypatch):
    _, _, said = served("--threads", "2")
    assert "2 threads (as asked); drafter: no MTP drafter found" in said
    assert re.search(r"demo at http://127\.0\.0\.1:\d+/v1, and a page to try it at http://127\.0\.0\.1:\d+/", said)
    monkeypatch.setattr("outrider.cores.quota_of_groups", lambda: 1.5)
    monkeypatch.setattr("outrider.cores.permitted_processors", lambda: [100, 101])  # of which nothing is known
    assert "(a CPU quota of 1.5 of 2 cores); " in served()[2]


# -- the configuration file ------------------------------------------------------------------------------------------


def test_options_come_from_a_file_and_the_command_line_wins(served, tmp_path):
    file = tmp_path / "outrider.toml"
    file.write_text(
        'served-model-name = ["a", "b"]\nlookup = false\nshared_history = 0\nthreads = 3\ncors = ["https://x.example"]\n'
    )
    options, app, _ = served("--config", str(file), "--threads", "2")
    assert options["lookup"] is False
    assert options["threads"] == 2
    assert app.state.models.slots[0].names == ("a", "b")


@pytest.mark.usefixtures("fake")
def test_the_model_may_stand_in_it(call, tmp_path, monkeypatch):
    file = tmp_path / "outrider.toml"
    file.write_text('model = "demo"\nport = 0\n')
    monkeypatch.setattr(lifecycle, "run_until_stopped", lambda _app, _scheduler, _limits, found: found[0].close())
    ran = call("serve", "--config", str(file))
    assert ran.code == 0, ran.err
    assert "demo at http://" in ran.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("thread = 2", "has the key thread, which is not an option: did you mean threads?"),
        ("threads = ", "is not TOML"),
        (None, "cannot be read"),
        ('port = "x"', "--port"),
    ],
)
def test_a_wrong_file_is_explained(fake, call, tmp_path, content, says):
    file = tmp_path / "outrider.toml"
    if content is not None:
        file.write_text(content)
    ran = call("serve", "demo", "--config", str(file))
    assert ran.code == 2
    assert says in ran.err
    assert fake.made == []


def test_adapters_are_names_and_paths(served):
    options, app, printed = served("--lora", "sql=adapters/sql", "--lora", "tone=owner/tone=2")
    assert options["lora"] == {"sql": "adapters/sql", "tone": "owner/tone=2"}
    assert app.state.models.slots[0].names == ("demo",)
    assert "adapters: sql, tone" in printed
    assert served("--lora", "adapters/sql")[0]["lora"] == "adapters/sql"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["sql", "tone"], "write --lora NAME=PATH"),
        (["sql=a", "tone"], "write --lora NAME=PATH"),
        (["=path"], "write --lora NAME=PATH"),
        (["sql="], "write --lora NAME=PATH"),
        (["sql=a", "sql=b"], "two adapters the name sql"),
        (["demo=a"], "has the name of the model"),
    ],
)
def test_adapters_without_a_name_of_their_own_are_refused(fake, call, given, message):
    ran = call("serve", "demo", *(word for one in given for word in ("--lora", one)))
    assert ran.code == 2
    assert message in ran.err
    assert fake.made == []


def test_a_drafter_without_an_adapter_is_refused(call, fake):
    ran = call("serve", "demo", "--lora", "sql=a", "--lora-drafter", "path")
    assert ran.code == 2
    assert "write --lora-drafter NAME=PATH" in ran.err
    assert fake.made == []


# -- replicas --------------------------------------------------------------------------------------------------------


def test_replicas_without_ray_are_explained(fake, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for module in [name for name in sys.modules if name.startswith("outrider.ray")]:
        monkeypatch.delitem(sys.modules, module)
    ran = call("serve", "demo", "--port", "0", "--replicas", "2")
    assert ran.code == 2
    assert "--replicas needs ray: pip install 'outrider[ray]'" in ran.err
    assert fake.made == []


@pytest.mark.parametrize("number", ["0", "-1", "many", "2.5"])
def test_a_wrong_number_of_replicas_is_refused(fake, call, number):
    ran = call("serve", "demo", "--port", "0", f"--replicas={number}")
    assert ran.code == 2
    assert f"--replicas {number} is neither a number from 1 nor auto" in ran.err
    assert fake.made == []


# -- several models --------------------------------------------------------------------------------------------------


def names_of(models, folder=None, names=()):
    from outrider.server.served_models import served_models

    return list(served_models(models, folder, names).values())


def test_names_of_several_models():
    assert names_of(["demo", "a/b"]) == [["demo"], ["a/b"]]
    assert names_of(["demo", "a/b"], names=["gpt-4=a/b", "small=demo", "tiny=demo"]) == [["small", "tiny"], ["gpt-4"]]
    assert names_of(["demo"], names=["x=demo", "a=b"]) == [["x", "a=b"]]
    for names, message in ((["x"], "write NAME=MODEL"), (["x=y"], "write NAME=MODEL"), (["x=demo", "x=a/b"], "name x")):
        with pytest.raises(UsageError, match=message):
            names_of(["demo", "a/b"], names=names)


def test_a_folder_of_models(tmp_path):
    """Without drafters, image encoders and the further parts of split files."""
    files = ("b.gguf", "mtp-b.gguf", "mmproj-b.gguf", "c-00001-of-00002.gguf", "c-00002-of-00002.gguf", "notes.txt")
    for name in files:
        (tmp_path / name).touch()
    for name in ("a", "a-assistant", "nothing"):
        (tmp_path / name).mkdir()
    for name in ("a", "a-assistant"):
        (tmp_path / name / "config.json").touch()
    assert names_of(["demo"], tmp_path) == [["demo"], ["a"], ["b"], ["c-00001-of-00002"]]
    for folder, message in ((tmp_path / "nothing", "holds no model"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UsageError, match=message):
            names_of([], folder)


def test_no_model_at_all_is_explained(fake, call):
    ran = call("serve")
    assert ran.code == 2
    assert "name one, or a folder of them with --models DIR" in ran.err
    assert fake.made == []


@pytest.mark.parametrize("options", [("--lora", "sql=x"), ("--drafter", "x")])
def test_options_of_one_model_need_one(call, tmp_path, options):
    (tmp_path / "a.gguf").touch()
    ran = call("serve", "--models", str(tmp_path), *options)
    assert ran.code == 2
    assert "are for the first MODEL: name it beside --models" in ran.err


def test_several_models_are_opened_and_the_first_is_loaded(served, tiny, tmp_path):
    """Wrong ones of a folder are left out; a wrong one that is named ends the command."""
    (tmp_path / "wrong.gguf").write_bytes(b"GGUF")
    (tmp_path / "tiny.gguf").symlink_to(tiny("gemma3").gguf)
    _, app, said = served("--models", str(tmp_path))
    models = app.state.models
    assert {slot.name: slot.state for slot in models.slots} == {"demo": "ready", "tiny": "unloaded"}
    assert models.slots[1].about.context == 4096
    assert "loaded when a request names them: tiny" in said
    assert "wrong is left out: " in said


def test_a_wrong_model_ends_the_command_before_another_is_loaded(fake, call, tmp_path):
    ran = call("serve", "demo", str(tmp_path / "none"), "--port", "0")
    assert ran.code == 2
    assert "does not exist" in ran.err
    assert fake.made == []


def test_an_idle_model_may_be_unloaded(served):
    assert served()[1].state.models.idle_unload is None
    assert served("--idle-unload", "600")[1].state.models.idle_unload == 600

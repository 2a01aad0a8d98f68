"""`outrider run` with one prompt."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outrider.cli import prompt_text as prompt_text_module
from outrider.cli.screen import DraftColours, harmless
from outrider.engine.outputs import Piece

STATS = {
    "target_passes",
    "drafted",
    "accepted",
    "tokens_per_pass",
    "acceptance_rate",
    "prefill_seconds",
    "decode_seconds",
    "decode_tokens_per_second",
    "draft_seconds",
    "verify_seconds",
    "load_seconds",
}


def test_text_goes_to_standard_output_and_figures_to_standard_error(fake, call):
    ran = call("run", "demo", "Paris")
    assert ran.code == 0
    assert ran.out == " is größer.\n"
    assert "13 tokens" in ran.err
    assert "tokens per pass" in ran.err
    assert "accepted" in ran.err
    assert fake.made[0].asked[0][0] == "Paris"


def test_json_prints_one_object_and_nothing_else(fake, call):  # noqa: ARG001
    ran = call("run", "demo", "Paris", "--json")
    found = json.loads(ran.out)
    assert set(found) == {"text", "token_ids", "prompt_tokens", "completion_tokens", "finish_reason", "stats"}
    assert set(found["stats"]) >= STATS
    assert found["text"] == " is größer."
    assert found["prompt_tokens"] == 6
    assert found["completion_tokens"] == len(found["token_ids"]) == 13
    assert ran.out.count("\n") == 1
    assert ran.err == ""


def test_every_option_reaches_the_model(fake, call):
    options = ["--draft", "4", "--no-lookup", "--drafter", "off", "--max-tokens", "7", "--temperature", "0.5"]
    options += ["--top-k", "3", "--top-p", "0.9", "--min-p", "0.1", "--seed", "11", "--stop", "a", "--stop", "b"]
    options += ["--quantize", "q4_0", "--kv-cache-dtype", "int8", "--threads", "1", "--context", "99"]
    options += ["--prefix-cache-dir", "pages", "--prefix-cache-disk", "1.5"]
    ran = call("run", "demo", "x", *options)
    assert ran.code == 0
    assert (
        "quantized, with an error of 7.4% of their size (8.1% in layers.3.mlp.up_proj.weight); kept in packs" in ran.err
    )
    (llm,) = fake.made
    expected = {"drafter": "off", "lookup": False, "threads": 1, "context": 99, "lora": {}, "lora_drafters": {}}
    expected |= {"quantize": "q4_0", "kv_cache_dtype": "int8", "prefix_cache_dir": Path("pages")}
    assert llm.options == expected | {"prefix_cache_disk": 3 << 29}
    params = llm.asked[0][1]
    assert (params.draft, params.max_tokens, params.temperature, params.seed) == (4, 7, 0.5, 11)
    assert (params.top_k, params.top_p, params.min_p, params.stop) == (3, 0.9, 0.1, ("a", "b"))


def test_drafter_path_and_auto(fake, call):
    call("run", "demo", "x", "--drafter", "some/drafter.gguf", "--draft", "off")
    call("run", "demo", "x")
    call("run", "demo", "x", "--drafter", "none")
    assert [llm.options["drafter"] for llm in fake.made] == ["some/drafter.gguf", "auto", "none"]
    assert [llm.asked[0][1].draft for llm in fake.made] == ["off", "auto", "auto"]


@pytest.mark.parametrize("argument", [["-"], []])
def test_prompt_from_standard_input_without_its_last_newline(fake, call, argument):
    assert call("run", "demo", *argument, stdin="Größe\n\n".encode()).code == 0
    assert fake.made[0].asked[0][0] == "Größe\n"


@pytest.mark.parametrize("prompt", ["summarise:", "-", ""])
def test_piped_text_follows_the_prompt(fake, call, prompt):
    assert call("run", "demo", prompt, stdin=b"the notes\n").code == 0
    asked = "summarise:\n\nthe notes" if prompt == "summarise:" else "the notes"
    assert fake.made[0].asked[0][0] == asked


def test_nothing_piped_adds_nothing(fake, call):
    assert call("run", "demo", "given", stdin=b"\n").code == 0
    assert fake.made[0].asked[0][0] == "given"


def test_stop_text_ends_the_answer(fake, call):  # noqa: ARG001
    assert call("run", "demo", "x", "--stop", "ö").out == " is gr\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.gguf", "x"], "missing.gguf: does not exist"),
        (["run", "demo", "x", "--temperature", "-1"], "temperature must lie between 0 and 100, not -1"),
        (["run", "demo", "x", "--draft", "99"], "number from 0 to 63, not 99"),
        (["run", "demo", "x", "--draft", "many"], "'many' is neither 'auto' nor 'off' nor a number of tokens"),
        (["run", "demo", "x", "--top-k", "some"], "--top-k"),
        (["run", "demo", ""], "the prompt is empty"),
        (["run", "demo", "\udcff"], "not UTF-8"),
        (["inspect", "missing.gguf"], "missing.gguf: does not exist"),
        (["run", "demo", "x", "--system", "be nice"], "--system is for chat models, and demo.gguf is a base model"),
        (["run", "demo", "x", "--thinking"], "--thinking is for chat models"),
        (["fly"], "fly"),
        (["rum", "demo"], "Did you mean 'run'?"),
        (["bench", "decod"], "Did you mean 'decode'?"),
        (["run", "demo", "x", "--temprature", "1"], "--temperature"),
    ],
)
def test_errors_are_short_and_exit_with_2(fake, call, arguments, said):  # noqa: ARG001
    ran = call(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_wrong_parameters_are_refused_before_anything_is_loaded(fake, call):
    call("run", "demo", "x", "--top-p", "0")
    assert not fake.made


@pytest.mark.parametrize(
    ("piped", "said"),
    [
        (b"ok\xff", "standard input is not UTF-8 text (byte 2)"),
        (b"\x7fELF\x02\x01\0\0", "standard input is binary (a zero byte at 6)"),
        (b"much of it " * 10, "standard input is larger than 0 MiB"),
        (b"\n", "the prompt is empty: write one, or pipe it in"),
    ],
)
def test_piped_bytes_that_are_no_prompt(fake, call, monkeypatch, piped, said):
    monkeypatch.setattr(prompt_text_module, "_MOST_BYTES", 100)
    ran = call("run", "demo", stdin=piped)
    assert ran.code == 2
    assert said in ran.err
    assert not fake.made


def test_a_pipe_that_stays_open_is_named(fake, call, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(prompt_text_module, "_PATIENCE_SECONDS", 0.0)
    read = io.BytesIO.read
    monkeypatch.setattr(prompt_text_module, "_MOST_BYTES", 1 << 10)

    class Slow(io.BytesIO):
        def read(self, size=-1):
            time.sleep(0.2)
            return read(self, size)

    assert "reading standard input (</dev/null if" in call("run", "demo", "x", stdin=Slow(b"notes")).err


def test_a_limit_that_ends_the_answer_is_named(fake, call):  # noqa: ARG001
    assert "stopped at --max-tokens 5\n" in call("run", "demo", "x", "--max-tokens", "5").err
    assert "stopped at" not in call("run", "demo", "x", "--stop", "ö").err


def test_interrupt_exits_with_130(fake, call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "stream", interrupted)
    assert call("run", "demo", "x").code == 130


@pytest.fixture
def chat_fake(fake, monkeypatch):
    """Every model has a chat template."""
    made = fake.__init__

    def with_template(self, *args, **options):
        made(self, *args, **options)
        self.chat = self.talk

    monkeypatch.setattr(fake, "__init__", with_template)
    return fake


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_chat_model_is_asked_in_its_own_form(chat_fake, call, form):
    assert call("run", "demo", "Hi", "--system", "be nice", "--thinking", *form).code == 0
    (llm,) = chat_fake.made
    ((prompt, _),) = llm.asked
    assert bytes(prompt[1:]) == b"system=be nice|user=Hi"
    assert llm.thinking


def test_a_chat_model_is_sampled_as_it_recommends(chat_fake, call, monkeypatch):
    monkeypatch.setattr(chat_fake, "sampling", {"temperature": 1.0, "top_k": 64, "repetition_penalty": 1.1})
    call("run", "demo", "Hi")
    call("run", "demo", "Hi", "--temperature", "0", "--top-k", "3", "--json")
    (first,), (second,) = (llm.asked for llm in chat_fake.made)
    assert [first[1].temperature, first[1].top_k, first[1].repetition_penalty] == [1.0, 64, 1.1]
    assert [second[1].temperature, second[1].top_k, second[1].repetition_penalty] == [0.0, 3, 1.1]
    assert first[1].max_tokens == 128


def test_a_base_model_is_sampled_as_it_recommends_else_greedy(fake, call, monkeypatch):
    call("run", "demo", "Hi")
    monkeypatch.setattr(fake, "sampling", {"temperature": 1.0, "stop": ("\n",), "max_tokens": 9, "min_tokens": 3})
    call("run", "demo", "Hi")
    call("run", "demo", "Hi", "--greedy", "--stop", "x", "--max-tokens", "2")
    by_itself, recommended, given = (llm.asked[0][1] for llm in fake.made)
    assert by_itself.greedy
    assert (recommended.temperature, recommended.stop, recommended.max_tokens) == (1.0, ("\n",), 9)
    assert (given.temperature, given.stop, given.max_tokens, given.min_tokens) == (0.0, ("x",), 2, 2)
    assert call("run", "demo", "Hi", "--greedy", "--temperature", "0").code == 0
    refused = call("run", "demo", "Hi", "--greedy", "--temperature", "0.5")
    assert (refused.code, refused.out) == (2, "")
    assert "--greedy is temperature 0, and --temperature is 0.5" in refused.err


def test_thoughts_are_no_part_of_piped_output(chat_fake, call, monkeypatch):
    monkeypatch.setattr(chat_fake, "answer", "<|channel>thought\nbecause<channel|>4 degrees")
    assert call("run", "demo", "How warm?").out == "4 degrees\n"


@pytest.mark.parametrize("command", [[], ["run"], ["inspect"], ["plan"], ["serve"], ["bench"], ["bench", "decode"]])
def test_a_short_option_for_help(call, command):
    short, long = call(*command, "-h"), call(*command, "--help")
    assert short.code == 0
    assert short == long


def test_log_lines_go_to_standard_error_from_the_level_on(fake, call, monkeypatch):
    generate = fake.generate

    def with_a_line(self, *args):
        logging.getLogger("outrider.engine").info("request 1: done")
        return generate(self, *args)

    monkeypatch.setattr(fake, "generate", with_a_line)
    assert "done" not in call("run", "demo", "x", "--json").err
    ran = call("run", "demo", "x", "--json", "--log-level", "info")
    assert " INFO outrider.engine: request 1: done\n" in ran.err
    assert json.loads(ran.out)["text"] == " is größer."
    assert "done" not in call("run", "demo", "x", "--json", "--log-level", "error").err


def test_version(call):
    ran = call("--version")
    assert ran.code == 0
    assert ran.out.startswith("outrider ")


def test_help_does_not_load_the_model_code():
    program = (
        "import sys; sys.argv = ['outrider', 'run', '--help']\n"
        "from outrider.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'outrider.bench', 'outrider.cli.bench', 'outrider.cli.chat', 'prompt_toolkit'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_without_a_terminal_nothing_of_one_is_used():
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import outrider, fake_llm; outrider.LLM = fake_llm.FakeLLM\n"
        "sys.argv = ['outrider', 'run', 'demo', '--show-drafts']\n"
        "from outrider.cli import main; main()\n"
        "assert 'prompt_toolkit' not in sys.modules\n"
    )
    command, environment = [sys.executable, "-c", program], os.environ | {"TERM": "xterm-256color"}
    ran = subprocess.run(command, input="x", capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert ran.stdout == " is größer.\n"
    assert "tokens per pass" in ran.stderr
    assert "\033" not in ran.stdout + ran.stderr


def test_colours_follow_the_drafted_tokens_through_held_back_text(fake):
    colours = DraftColours(fake("demo").tokenizer)
    colours.push(Piece("", tuple(b"ab"), ("mtp", None), (None, None)))
    assert colours.paint("a") == "\033[32ma\033[0m"
    colours.push(Piece("", tuple("cö".encode()), (None, "lookup", "mtp"), (99, None, None)))
    assert colours.paint("bcö") == "b\033[33mc\033[0m\033[32mö\033[0m"
    assert colours.paint("?") == "?"


def test_colours_skip_what_is_not_shown(fake):
    colours = DraftColours(fake("demo").tokenizer)
    colours.push(Piece("", tuple(b"<mark>ab"), ("mtp",) * 7 + (None,), (None,) * 8))
    assert colours.paint("ab") == "\033[32ma\033[0mb"


def test_control_characters_do_not_reach_the_terminal():
    assert harmless("a\033[2Jb\tc\n\x07\u200d👩‍🚀") == "a\\x1b[2Jb\tc\n\\x07\u200d👩‍🚀"


def test_an_answer_uses_the_first_adapter(fake, call):
    call("run", "demo", "Paris", "--lora", "sql=a", "--lora", "tone=b", "--lora-drafter", "tone=c")
    assert fake.made[0].options["lora_drafters"] == {"tone": "c"}
    assert fake.made[0].options["lora"] == {"sql": "a", "tone": "b"}
    assert fake.made[0].asked[0][1].lora == "sql"
    for options in ([], ["--lora", "merged"]):
        call("run", "demo", "Paris", *options)
        assert fake.made[-1].asked[0][1].lora is None
    assert fake.made[-1].options["lora"] == "merged"

"""Chat templates render as transformers renders them, and cannot do anything else."""

from __future__ import annotations

import json

import gguf
import pytest
from tiny_checkpoints import save_gguf
from word_tokenizer import save_tokenizer

from outrider.chat.template import ChatTemplate, chat_template_of
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError

TURNS = """{{ bos_token }}
{%- macro turn(role, text) -%}
<|turn>{{ 'model' if role == 'assistant' else role }}
{{ text | trim }}<turn|>
{% endmacro -%}
{%- set found = namespace(system='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- set found.system = message['content'] -%}
        {%- continue -%}
    {%- endif -%}
    {%- if loop.first and message.role == 'assistant' -%}
        {{ raise_exception('A conversation begins with a question') }}
    {%- endif -%}
    {{ turn(message.role, message.content) }}
{%- endfor -%}
{%- if tools -%}
    {%- for tool in tools -%}
<|tool>{{ tool | tojson }}<tool|>
    {%- endfor -%}
{%- endif -%}
{%- if found.system %}system={{ found.system }}
{% endif -%}
{%- if add_generation_prompt -%}
<|turn>model
{% if enable_thinking %}<|think|>{% endif %}
{%- endif -%}
"""
CONVERSATIONS = [
    [{"role": "user", "content": "Hi  "}],
    [
        {"role": "system", "content": 'Be "brief" & kind <b>'},
        {"role": "user", "content": "Grüße\n"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "{{ 7 * 7 }}"},
    ],
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Wetter für <Ort>", "parameters": {}}}]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("thinking", [False, True])
def test_it_renders_as_in_transformers(messages, tools, thinking):
    from transformers.utils.chat_template_utils import render_jinja_template

    (theirs,), _ = render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=TURNS,
        add_generation_prompt=True,
        enable_thinking=thinking,
        bos_token="<bos>",
    )
    ours = ChatTemplate(TURNS, bos="<bos>").render(messages, tools=tools, thinking=thinking)
    assert ours == theirs
    assert ours.startswith("<bos>")
    assert "49" not in ours


SPELLED = """{% for message in messages %}{% generation %}
    {{ message.content | tojson(ensure_ascii=True, separators=(',', ':')) }}{{ eos_token }}{% endgeneration %}
{% endfor %}{{ {'b': ['ü'], 'a': 1} | tojson(ensure_ascii=False, sort_keys=True) }}|{{ pad_token }}|{{ unk_token }}|
{{ {'b': 1} | tojson(indent=2) }}
"""
SPECIALS = {"bos_token": "<bos>", "eos_token": {"__type": "AddedToken", "content": "<eos>"}, "pad_token": "<pad>"}
NAMED = [
    {"name": "default", "template": "\n  plain {{ messages[0].content }}\n   "},
    {"name": "tool_use", "template": "\n\n{% set n = tools | length %}{{ n }} tools\n"},
]


VARIABLES = (
    "{{ documents is none }} {{ image_token }} {{ audio_token }} {{ soc_token }} {{ tools is none }} {{ cls_token }}"
)
MODELS_OWN = {"extra_special_tokens": {"image_token": "<eos>"}, "soc_token": "<pad>"}
NESTED = {"model_specific_special_tokens": {"audio_token": "<bos>"}}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"chat_template": VARIABLES, **MODELS_OWN}},
        {"tokenizer_config.json": {"chat_template": VARIABLES, **NESTED}},
        {"chat_template.jinja": SPELLED},
        {"tokenizer_config.json": {"chat_template": SPELLED}},
        {"tokenizer_config.json": {"chat_template": NAMED}},
        {"chat_template.jinja": TURNS, "tokenizer_config.json": {"chat_template": "not this one"}},
        {"chat_template.jinja": TURNS, "additional_chat_templates/tool_use.jinja": SPELLED},
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_files_render_as_in_transformers(tmp_path, files, tools):
    import transformers

    tokenizer = save_tokenizer(tmp_path)
    files = {"tokenizer_config.json": {}, **files}
    files["tokenizer_config.json"] |= {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIALS}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    found = chat_template_of(tokenizer)
    assert found is not None
    for messages in CONVERSATIONS:
        expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
        assert found.render(messages, tools=tools) == expected


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"chat_template.jinja": b"{% for %}"}, "its chat template cannot be read"),
        ({"chat_template.jinja": b"\xff"}, "can't decode byte 0xff"),
        ({"chat_template.json": b"{"}, "cannot be read as JSON"),
        ({"tokenizer_config.json": b'{"chat_template": [{"name": "rag", "template": "x"}]}'}, "none is the default"),
        ({"tokenizer_config.json": b'{"chat_template": 5}'}, "its chat template default is not a text"),
    ],
)
def test_a_broken_template_refuses_conversations_only(tmp_path, files, problem):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    found = chat_template_of(tmp_path / "tokenizer.json")
    assert found is not None
    with pytest.raises(UsageError, match=problem):
        found.render(CONVERSATIONS[0])


def test_a_processors_template_is_the_last_choice(tmp_path):
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "processor {{ bos_token }}"}))
    found = chat_template_of(tmp_path / "tokenizer.json")
    assert found is not None
    assert found.render([]) == "processor <bos>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "tokenizer"}))
    found = chat_template_of(tmp_path / "tokenizer.json")
    assert found is not None
    assert found.render([]) == "tokenizer"


def test_what_a_template_refuses_is_said():
    template = ChatTemplate(TURNS, bos="")
    with pytest.raises(UsageError, match="A conversation begins with a question"):
        template.render([{"role": "assistant", "content": "Hi"}])
    with pytest.raises(CheckpointError, match="chat template cannot be read"):
        ChatTemplate("{% for %}", bos="")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(attack):
    with pytest.raises(UsageError, match="does not take these messages"):
        ChatTemplate(attack, bos="").render([{"role": "user", "content": "Hi"}])


def test_it_is_found_where_checkpoints_keep_it(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    assert chat_template_of(tokenizer) is None
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "config {{ bos_token }}", "bos_token": {"content": "<b>"}})
    )
    found = chat_template_of(tokenizer)
    assert found is not None
    assert found.render([]) == "config <b>"
    (tmp_path / "chat_template.jinja").write_text("file")
    found = chat_template_of(tokenizer)
    assert found is not None
    assert found.render([]) == "file"
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        chat_template_of(tokenizer)


def test_a_gguf_brings_its_own():
    source = "{{ bos_token }}!{{ eos_token }}{{ pad_token }}"
    tables = TokenizerTables("llama", ["<pad>", "<eos>", "<bos>"], None, None, None, 2, 1, None, True, False, source, 0)
    found = chat_template_of(tables)
    assert found is not None
    assert found.render([]) == "<bos>!<eos><pad>"


@pytest.mark.parametrize("broken", [5, "{% for %}"])
def test_a_gguf_with_a_broken_template_opens(tiny, tmp_path, broken):
    def edit(writer):
        writer.add_key_value("tokenizer.chat_template", broken, gguf.GGUFValueType.get_type(broken))
        writer.add_pad_token_id(0)

    checkpoint = open_checkpoint(save_gguf(tiny("gemma3").model, tmp_path / "model.gguf", edit=edit))
    assert checkpoint.tokenizer is not None
    found = chat_template_of(checkpoint.tokenizer)
    assert found is not None
    with pytest.raises(UsageError, match=r"is not a text|cannot be read"):
        found.render(CONVERSATIONS[0])


def test_a_gguf_with_a_template_for_tools(tiny, tmp_path):
    def edit(writer):
        writer.add_chat_template([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}])

    tokenizer = open_checkpoint(save_gguf(tiny("gemma3").model, tmp_path / "model.gguf", edit=edit)).tokenizer
    assert tokenizer is not None
    found = chat_template_of(tokenizer)
    assert found is not None
    assert found.render([]) == "plain"
    assert found.render([], tools=TOOLS) == "tools"

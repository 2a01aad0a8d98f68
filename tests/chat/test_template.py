"""Chat templates render as transformers renders them, and cannot do anything else."""

from __future__ import annotations

import json

import pytest

from outrider.chat.template import ChatTemplate, chat_template_of
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
    tables = TokenizerTables(
        "llama", ["<pad>", "<eos>", "<bos>"], None, None, None, 2, 1, None, True, False, "{{ bos_token }}!"
    )
    found = chat_template_of(tables)
    assert found is not None
    assert found.render([]) == "<bos>!"

"""Chat templates that behave as Gemma 3's and Gemma 4's do, and a small tokenizer with the control tokens of both."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers

CONTROL = (
    *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|think|>"),
    *("<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", '<|"|>'),
    *("<|tool_response>", "<tool_response|>"),
)

GEMMA3 = """{{ bos_token }}
{%- set lead = messages[0]['content'] | trim + '\n\n' if messages[0]['role'] == 'system' else '' -%}
{%- for message in (messages[1:] if messages[0]['role'] == 'system' else messages) -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must take turns, user and assistant") }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}
    {{- lead if loop.first }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
"""Knows neither tools nor thoughts, and refuses roles that do not alternate."""

ARGUMENTS = """
{%- macro value(it) -%}
  {%- if it is string -%}<|"|>{{ it }}<|"|>
  {%- elif it is boolean -%}{{ 'true' if it else 'false' }}
  {%- elif it is mapping -%}{ {{- pairs(it) -}} }
  {%- elif it is sequence -%}[{%- for x in it -%}{{ value(x) }}{{ ',' if not loop.last }}{%- endfor -%}]
  {%- else -%}{{ it }}
  {%- endif -%}
{%- endmacro -%}
{%- macro pairs(it) -%}
  {%- for key, x in it | dictsort -%}{{ key }}:{{ value(x) }}{{ ',' if not loop.last }}{%- endfor -%}
{%- endmacro -%}"""
"""Macros that write the arguments of a call as Gemma 4's template does."""

GEMMA4 = (
    ARGUMENTS
    + """
{{ bos_token }}
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}
{%- if system or tools or enable_thinking -%}
  {{ '<|turn>system\n' }}{{ '<|think|>' if enable_thinking }}{{ system | trim }}
  {%- for tool in tools or [] -%}
    <|tool>declaration:{{ tool.function.name }}{description:<|"|>{{ tool.function.description }}<|"|>
    {%- if tool.function.parameters %},parameters:{{ value(tool.function.parameters) }}{% endif %}}<tool|>
  {%- endfor -%}
  {{ '<turn|>\n' }}
{%- endif -%}
{%- for message in (messages[1:] if messages[0]['role'] == 'system' else messages) -%}
  {%- if message.role == 'tool' -%}
    <|tool_response>response:{{ message.name or 'unknown' }}{value:{{ value(message.content) }}}<tool_response|>
  {%- else -%}
    {{ '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
    {%- if message.name %}{{ message.name | upper }}: {% endif -%}
    {%- if message.reasoning_content -%}
      {{ '<|channel>thought\n' + message.reasoning_content + '\n<channel|>' }}
    {%- endif -%}
    {%- for call in message.tool_calls or [] -%}
      <|tool_call>call:{{ call.function.name }}{ {{- pairs(call.function.arguments) -}} }<tool_call|>
    {%- endfor -%}
    {{ message.content | trim }}
    {%- if not message.tool_calls %}{{ '<turn|>\n' }}{% endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<|turn>model\n' if messages[-1].role != 'tool' }}
  {{- '<|channel>thought\n' if enable_thinking and messages[-1].role == 'tool' }}
  {{- '<|channel>thought\n<channel|>' if not enable_thinking }}
{%- endif -%}
"""
)
"""Knows tools and thoughts. After a tool's result it opens the thought itself; without thinking it closes it, too."""


def save_tokenizer(path: Path, *, special: bool = True) -> Path:
    """A tokenizer.json of Gemma's kind with bytes, common letters, and a few merges across words and marks.

    Args:
        special: whether the file says that control tokens are such; else they are added tokens like any other.
    """
    letters = sorted({*"▁\nabcdefghijklmnopqrstuvwxyzTHO<>|_.:,{}"})
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("l", "l"), ("|", ">"), ("<", "|"), ("\n", "\n")]
    merges += [(".", "\n"), ("o", "\n"), ("e", "o"), ("eo", "s"), ("\n", "h"), (":", "▁"), ("t", "u")]
    words = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    tokens = [AddedToken(word, normalized=False, special=special) for word in CONTROL]
    made.add_special_tokens(tokens) if special else made.add_tokens(tokens)
    made.save(str(path))
    return path

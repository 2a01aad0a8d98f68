"""Chat templates for tiny models."""

from __future__ import annotations

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if enable_thinking %}think {% endif %}"

GEMMA = """
{%- if tools -%}
  {%- for tool in tools -%}
    <|tool>{{ tool.function.name }}:{{ tool.function.parameters | default({}) | tojson }}<tool|>
  {%- endfor -%}
{%- endif -%}
{%- for m in messages -%}
  {%- if m.reasoning_content is defined -%}<|channel>thought\n{{ m.reasoning_content }}<channel|>{%- endif -%}
  {%- if m.tool_calls -%}
    {%- for call in m.tool_calls -%}
      <|tool_call>call:{{ call.function.name }}{ {{- call.function.arguments.items() | list -}} }<tool_call|>
    {%- endfor -%}
  {%- endif -%}
  {{ m.role }}{{ m.tool_call_id }}: {{ m.content + "\n" }}
{%- endfor -%}
{%- if enable_thinking -%}<|think|>{%- endif -%}"""
"""Knows tools and thoughts, in Gemma 4's markers."""

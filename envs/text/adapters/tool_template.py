"""A chat template with tool calls, for policies whose own template has none: TRL's tool loop needs one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.contracts import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# ChatML with tools. Earlier messages read the same whatever follows, which TRL's loop needs.
_TEMPLATE = """
{%- for message in messages -%}
{%- set role = 'user' if message.role == 'tool' else message.role -%}
{{- '<|im_start|>' + role + '\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function or call -%}
{{- '<tool_call>{"name": ' + (call.name | tojson) + ', "arguments": ' + (call.arguments | tojson) + '}</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endgeneration -%}
{{- '\n' -}}
{%- else -%}
{{- message.content -}}
{%- if tools and loop.first -%}
{{- '\nTools:' -}}
{%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\nCall one by <tool_call>{"name": ..., "arguments": {...}}</tool_call>' -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
_PARSED = {
    "defaults": {"role": "assistant"},
    # Where transformers begins to read the model's turn; the fields below are how it finds calls in it.
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": "<|im_end|>", "content": "text"},
    },
}


def tool_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a saved policy, ready for TRL's tool loop.

    A template that can show a tool call is kept. In place of a plain ChatML template comes one that can, with what
    transformers needs to find the calls in the model's text; other messages read as before.

    Raises:
        TemplateError: the template can show no tool call, and it is no ChatML.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    # The policy was trained with its own template, so that one is kept wherever it can be.
    if tokenizer.chat_template and _shows_calls(tokenizer):
        return tokenizer
    if not {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.get_vocab()):
        raise TemplateError(
            f"the chat template in {folder} can show no tool call, which TRL's loop needs, and its tokenizer does not "
            "have ChatML's <|im_start|> and <|im_end|>: set `chat_template` and `response_template` by hand"
        )
    tokenizer.chat_template, tokenizer.response_template = _TEMPLATE.strip(), _PARSED
    return tokenizer


def _shows_calls(tokenizer: PreTrainedTokenizerBase) -> bool:
    from jinja2.exceptions import TemplateError as JinjaError

    # Tried and not searched for words: a template may mention tools and still drop the calls.
    call = {"type": "function", "function": {"name": "a_tool", "arguments": {"action": "a_value"}}}
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "a_tool", "content": "an_answer"},
    ]
    try:
        text = str(tokenizer.apply_chat_template(talk, tokenize=False))
    # Many templates refuse roles or missing fields by raising.
    except (JinjaError, TypeError, KeyError):
        return False
    return all(word in text for word in ("a_tool", "a_value", "an_answer"))

"""The fields of a request that say how tokens are chosen, and their translation to `SamplingParams`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from outrider import Grammar, SamplingParams
from outrider.sampling.params import MAX_DRAFT, params_with
from outrider.server.fields import Fields, Integer, Number, Refused
from outrider.server.structured_output import StructuredOutput

MAX_BIASES = 1024
MAX_STOP_TEXTS, MAX_STOP_TOKENS = 16, 128
MAX_CLIENT_SALT = 256
MAX_CHOICES = 128
_BY_CHECKPOINT = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens"),
)
"""Fields that the checkpoint's recommendation sets where a request does not; so are `stop` and `max_tokens`."""
_LEAST_TOP_P = 1e-6
"""Keeps the most likely token alone."""

REFUSED: Refused = {
    "include_stop_str_in_output": ((False,), "the text ends before the stop text; finish_reason says that it did"),
    "skip_special_tokens": (
        (True,),
        "the text has no control tokens; a stream has them in outrider.token_ids",
    ),
    "use_beam_search": ((False,), "leave it out, or ask for several answers with n"),
    "length_penalty": ((0, 1), "leave it out, or bound the answer with max_tokens and min_tokens"),
    "early_stopping": ((False,), "leave it out: there is no beam search"),
    "bad_words": (([], ""), "use logit_bias with -100 for their tokens"),
    "allowed_token_ids": (([],), "use regex, grammar or response_format"),
    "logits_processors": (([],), "use logit_bias, regex, grammar or response_format"),
    "truncate_prompt_tokens": ((), "shorten the prompt; POST /tokenize counts its tokens"),
    "no_repeat_ngram_size": ((0,), "use repetition_penalty or frequency_penalty"),
    "repeat_last_n": ((-1,), "repetition_penalty looks at the whole prompt and answer; leave it out"),
    "dry_multiplier": ((0,), "use repetition_penalty or frequency_penalty"),
    "mirostat": ((0,), "use top_p, min_p or typical_p"),
    "dynatemp_range": ((0,), "use temperature"),
    "smoothing_factor": ((0,), "use temperature"),
    "xtc_probability": ((0,), "use min_p or typical_p"),
    "top_n_sigma": ((0, -1), "use min_p"),
    "top_a": ((0,), "use min_p"),
    "tfs_z": ((1,), "use typical_p"),
    "min_keep": ((0, 1), "leave it out"),
    "samplers": (
        (),
        "the order of the filters is fixed; leave it out",
    ),
    "sampler_seq": ((), "the order of the filters is fixed; leave it out"),
    "lora": (([],), "name an adapter as the model; GET /v1/models lists them"),
    "options": (({},), "give its fields at the top level of the request"),
    "format": (("",), "use response_format"),
    "guided_whitespace_pattern": ((), "use grammar"),
}
_SPELLINGS = {
    "repeat_penalty": "repetition_penalty",
    "n_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "n_probs": "logprobs",
}


def _biases(biases: Any) -> Any:
    """llama.cpp's pairs too. Bounded before each entry is looked at."""
    if isinstance(biases, dict | list) and len(biases) > MAX_BIASES:
        raise ValueError(f"it has {len(biases)} entries; the limit is {MAX_BIASES}: leave some out")
    if isinstance(biases, list):
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) for pair in biases):
            raise ValueError('give an object of token ids and numbers, such as {"5": -100}')
        return {token: -100 if bias is False else bias for token, bias in biases}
    return biases


def _stop_texts(stop: Any) -> Any:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_STOP_TEXTS:
        raise ValueError(f"give a text, or a list of at most {MAX_STOP_TEXTS} texts")
    return [text for text in texts if text]


def _draft(setting: Any) -> Any:
    fixed = isinstance(setting, int) and not isinstance(setting, bool) and 0 <= setting <= MAX_DRAFT
    if not fixed and setting not in ("auto", "off"):
        raise ValueError(f'give "auto", "off" or a number of tokens from 0 to {MAX_DRAFT}')
    return setting


def _prediction(given: Any) -> Any:
    """The text of OpenAI's `{"type": "content", "content": ...}`, whose content is a text or a list of text parts."""
    if isinstance(given, str):
        return given
    content = given.get("content") if isinstance(given, dict) and given.get("type") == "content" else None
    parts = [{"text": content}] if isinstance(content, str) else content
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts] if isinstance(parts, list) else [0]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError('give {"type": "content", "content": "the expected text"}')
    return "".join(map(str, texts))


_TEXTS = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOP_TEXTS}
Biases = Annotated[
    dict[int, Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES), BeforeValidator(_biases)
]
StopTexts = Annotated[list[str], BeforeValidator(_stop_texts), WithJsonSchema({"anyOf": [{"type": "string"}, _TEXTS]})]
Prediction = Annotated[
    str,
    BeforeValidator(_prediction),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "type": {"const": "content"},
                "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
            },
            "required": ["type", "content"],
        }
    ),
]
Seed = Annotated[Integer, Field(ge=-(2**63), lt=2**64)]
Draft = Annotated[
    Any,
    BeforeValidator(_draft),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "off"]}, {"type": "integer", "minimum": 0, "maximum": MAX_DRAFT}]}),
]


class StreamOptions(Fields):
    """`include_usage`: end the stream with a chunk that has the usage. The others are accepted without effect."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class SamplingFields(StructuredOutput):
    """What completions and chat have in common."""

    refused: ClassVar[Refused] = REFUSED
    spellings: ClassVar[dict[str, str]] = _SPELLINGS

    model: str = ""
    max_tokens: Annotated[Integer, Field(ge=-1)] = -1
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    n: Annotated[Integer, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: StopTexts = Field(default_factory=list)
    seed: Seed = -1
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: Biases = Field(default_factory=dict)
    stream: bool = False
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    # As in vLLM.
    top_k: Annotated[Integer, Field(ge=-1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    min_tokens: Annotated[Integer, Field(ge=0)] | None = None
    stop_token_ids: Annotated[list[Integer], Field(max_length=MAX_STOP_TOKENS)] = Field(default_factory=list)
    ignore_eos: bool = False
    cache_salt: Annotated[str, Field(max_length=MAX_CLIENT_SALT)] = ""
    # As in llama.cpp's server.
    cache_prompt: bool = True
    # outrider's own: drafting for this request alone; the tokens are the same.
    drafting: Draft = "auto"
    prediction: Prediction = ""
    # Accepted, as by OpenAI's API, and without effect on the text.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    verbosity: Any = None

    def params(
        self,
        room: int,
        defaults: Mapping[str, Any],
        cache_salt: str,
        *,
        logprobs: int | None = None,
        grammar: Grammar | None = None,
        lora: str | None = None,
    ) -> SamplingParams:
        """The engine's parameters of one answer.

        Args:
            room: tokens that fit into the context after the prompt.
            defaults: fields of `SamplingParams` that the checkpoint recommends.
            cache_salt, logprobs, grammar, lora: as in `SamplingParams`.
        """
        wanted = defaults.get("max_tokens", room) if self.max_tokens == -1 else self.max_tokens
        max_tokens = min(wanted, room) if wanted > 0 else room
        given = {name: value for name in _BY_CHECKPOINT if (value := getattr(self, name)) is not None}
        if "top_p" in given:
            given["top_p"] = max(given["top_p"], _LEAST_TOP_P)
        if "top_k" in given:
            given["top_k"] = min(given["top_k"], 2**31 - 1)
        if "min_tokens" in given:
            given["min_tokens"] = min(given["min_tokens"], max_tokens)
        if self.stop:
            given["stop"] = tuple(self.stop)
        return params_with(
            {"temperature": 1.0, **defaults},
            **given,
            max_tokens=max_tokens,
            logit_bias=self.logit_bias,
            logprobs=logprobs,
            seed=secrets.randbits(63) if self.seed == -1 else self.seed % 2**64,
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_end=self.ignore_eos,
            grammar=grammar,
            draft=self.drafting,
            cache_prompt=self.cache_prompt,
            cache_salt=cache_salt,
            prediction=self.prediction,
            lora=lora,
        )

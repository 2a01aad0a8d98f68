"""The public API: load a model; generate, stream, chat, score, close."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from outrider.backends.cpu import KvFormat
from outrider.engine import answers, scoring
from outrider.engine.outputs import Piece, RequestOutput
from outrider.errors import UsageError
from outrider.load_options import LoadOptions
from outrider.loading import Loaded, load
from outrider.progress import loading_bar
from outrider.prompts import Message, Prompt
from outrider.quant import Quantization
from outrider.sampling.params import SamplingParams

ParamsForAll = SamplingParams | Sequence[SamplingParams] | None


class LLM:
    """A loaded model.

    Thread-safe: several threads, and forked children, may use one model. Their calls share passes, which changes no
    token. A stream belongs to one thread at a time, and to the process that began it.

    Args:
        model: "demo", a .gguf file, a folder with config.json and *.safetensors, an id of the hub
            ("owner/name"), or a model of Ollama's ("ollama:NAME").
        drafter: the MTP drafter, named like a model; "auto" finds the model's own (see `drafters.pairing`); "off" or
            None for none. `LLM.drafter` has its path, and the reason.
        lookup: also draft by prompt lookup (n-gram matches).
        lookup_history: tokens of earlier requests that lookup also covers (some 600 bytes each); 0 for none.
        prefix_cache_bytes: memory for keys and values that no running request uses, kept for prompts that begin alike
            (least recently used out first); 0 for none, None for a quarter of what is available after loading.
        prefix_cache_dir: a folder for keys and values that leave memory, and for all of them when the model is closed:
            they serve again after a restart. It is made for this user alone; nothing in it is encrypted.
        prefix_cache_disk: most bytes of the folder (least recently used out first); None for 10 GiB.
        kv_cache_bytes: most bytes of all keys and values, the prefix cache's too; None for four fifths of what is
            available after loading. Give each model its part where several share the machine.
        threads: None for one per usable core (`cores.py`).
        context: most positions of one request; None for the model's own limit, or less if no more fits into memory.
        progress: called with (what, fraction from 0 to 1) while loading; None for a bar on a terminal or in a
            notebook; False for none.
        kv_cache_dtype: format of keys and values: "int8" (8 bits in layers of full attention; no measurable loss),
            "float16" or "float32".
        quantize: "q4_0" or "q8_0" for floating-point weights in blocks of 4 or 8 bits (see `quant.packs`); None for
            weights as stored in the checkpoint.
        lora: LoRA adapters of this model by name: folders as PEFT saves them, GGUF adapters, or ids of the hub. A
            request chooses one by `SamplingParams(lora=name)`; all requests share passes. In place of a dict, the path
            of one adapter: it is merged into the weights, which must be floating-point.
        lora_drafters: MTP drafters of adapters, by the adapter's name; others are drafted for by the model's own.

    Attributes: `path`, `config`, `context`, `tokenizer` and `drafter`; `parts` for what builds on the engine.

    Raises:
        CheckpointError: the model cannot be loaded; the message says why and what to do.
        UsageError: an argument of a wrong type or out of its range.
    """

    _parts: Loaded | None = None  # until it is loaded, and once it is closed

    def __init__(
        self,
        model: str | Path,
        *,
        drafter: str | Path | None = "auto",
        lookup: bool = True,
        lookup_history: int = 0,
        prefix_cache_bytes: int | None = None,
        threads: int | None = None,
        context: int | None = None,
        progress: Callable[[str, float], None] | bool | None = None,
        kv_cache_dtype: KvFormat = "int8",
        quantize: Quantization | None = None,
        lora: str | Path | Mapping[str, str | Path] | None = None,
        lora_drafters: Mapping[str, str | Path] | None = None,
        prefix_cache_dir: str | Path | None = None,
        prefix_cache_disk: int | None = None,
        kv_cache_bytes: int | None = None,
    ) -> None:
        options = LoadOptions(
            *(drafter, lookup, lookup_history, prefix_cache_bytes, threads, context, kv_cache_dtype, quantize),
            lora={} if lora is None else lora,
            lora_drafters={} if lora_drafters is None else lora_drafters,
            prefix_cache_dir=prefix_cache_dir,
            prefix_cache_disk=prefix_cache_disk,
            kv_cache_bytes=kv_cache_bytes,
        )
        with loading_bar(progress) as advance:
            loaded = load(model, options, advance)
        self.path, self.config, self.context = loaded.path, loaded.config, loaded.context
        self.tokenizer, self.drafter, self._parts = loaded.tokenizer, loaded.drafter, loaded

    @property
    def parts(self) -> Loaded:
        """Engine, target, caches and so on; not a stable API. Raises UsageError once closed."""
        if (parts := self._parts) is None:
            raise UsageError(f"{self.path.name} was closed: load it again")
        return parts

    def get_default_sampling_params(self) -> SamplingParams:
        """What the checkpoint recommends (see docs/serving.md), else `SamplingParams()`: greedy, 128 tokens. A call
        without `sampling_params` uses it; `SamplingParams(...)` is taken as it is."""
        return self.parts.prompts.defaults

    def generate(self, prompts: str | Iterable[Prompt], sampling_params: ParamsForAll = None) -> list[RequestOutput]:
        """Answers prompts as one batch: one output per prompt, in their order.

        Args:
            prompts: a text, texts, or lists of token ids (taken as they are: no BOS is added).
            sampling_params: for all prompts, or a list with one for each; None for `get_default_sampling_params()`.

        Raises:
            UsageError: a prompt is empty, too long for the context, or has ids outside the vocabulary; the grammar
                cannot be used, or exceeded its work limit; an argument is of a wrong type.
            OutriderError: a pass failed, the model was closed while the request ran, or a prompt and its answer could
                never fit into memory.
        """
        parts = self.parts
        ids = parts.prompts.encode_all(prompts)
        return answers.answer_all(parts.driver, ids, parts.prompts.params(sampling_params, len(ids)))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: ParamsForAll = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | int = False,
    ) -> list[RequestOutput]:
        """The model's next turn in one conversation, or in each of a list of them. Raises as `generate`.

        Args:
            messages: objects with `role` ("system", "user", "assistant", "tool") and `content`, a text.
            tools: functions that the model may call, in OpenAI's format; see `RequestOutput.tool_calls`.
            thinking: let the model reason first, if its template supports it (a number: at most that many tokens); see
                `RequestOutput.reasoning`.
        """
        parts = self.parts
        turns = parts.prompts.turns(messages, tools=tools, thinking=thinking)
        return answers.answer_turns(parts.driver, turns, parts.prompts.params(sampling_params, len(turns)))

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Generator[Piece, None, None]:
        """The answer pass by pass, with empty pieces while the prompt is computed. Raises as `generate`, before the
        first piece. Closing the iterator cancels the request. `prompt` may be a conversation, too, as in `chat`."""
        parts = self.parts
        ids, (params,) = parts.prompts.encode(prompt), parts.prompts.params(sampling_params, 1)
        return answers.stream(self, parts.driver, ids, params)

    def astream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> AsyncGenerator[Piece, None]:
        """As `stream`, for asyncio. Closing it, or cancelling the task that reads it, cancels the request."""
        return answers.astream(lambda: self.stream(prompt, sampling_params))

    def score(self, prompts: str | Iterable[Prompt], *, lora: str | None = None) -> list[list[float]]:
        """Natural log-probabilities of given texts, bit for bit those that `SamplingParams.logprobs` reports.

        One list per prompt: log p(token | tokens before it) for every token but the first (BOS, if the prompt is text).
        `lora` names an adapter.
        """
        parts = self.parts
        parts.prompts.check_adapter(lora)
        return [scoring.score(parts, ids, lora) for ids in parts.prompts.encode_all(prompts)]

    def close(self) -> None:
        """Releases the model's memory. Requests that run end with an error, and later calls raise UsageError."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.driver.stop(f"{self.path.name} was closed while the request ran")

    __del__ = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

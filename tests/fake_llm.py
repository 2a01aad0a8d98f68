"""A model that is none: it answers at once, with bytes for tokens, so that the commands around it can be tested."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from outrider.chat.markers import Markers
from outrider.chat.turn import Turn, TurnRequest
from outrider.drafters.pairing import FoundDrafter
from outrider.engine.outputs import Piece, RequestOutput, RequestStats, TargetPass
from outrider.errors import CheckpointError, UsageError
from outrider.quant import Packed
from outrider.sampling.params import SamplingParams

BOS = 256


class ByteTokenizer:
    """A token is a byte, so characters of several bytes come in halves."""

    def encode(self, text: str) -> list[int]:
        return [BOS, *text.encode(errors="replace")]

    control_ids: ClassVar[dict[str, int]] = {}

    def special_tokens(self, _texts: tuple[str, ...]) -> frozenset[int]:
        return frozenset()

    def piece(self, token: int, *, skip_special: bool) -> bytes:
        return b"" if token == BOS and skip_special else bytes([token])


class FakeMeasure:
    """Passes whose time is known, and the order in which they were asked for."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def verify(self, rows: int, _context: int, repeat: int) -> list[float]:
        self.calls.append(rows)
        return [0.010 + 0.001 * rows] * repeat

    def prefill(self, tokens: int, repeat: int, _chunk: int) -> list[float]:
        return [tokens / 1000] * repeat


class FakePlanner:
    sources: ClassVar[list[str]] = ["lookup"]


class FakeEngine:
    chunk = 256
    planner = FakePlanner()


class FakeLLM:
    """Set `answer` to what every prompt gets, `pause` to the seconds of a pass, `unfaithful` to make drafting change
    the tokens, `chat` to anything for a model with a chat template, `sampling` to what it recommends. `made` are all
    instances."""

    answer: ClassVar[str] = " is größer."
    pause: ClassVar[float] = 0.0
    unfaithful: ClassVar[bool] = False
    chat: Any = None
    sampling: ClassVar[dict[str, float]] = {}
    context: ClassVar[int] = 32_768
    made: ClassVar[list[FakeLLM]] = []

    def __init__(self, model: str, *, progress: Any = None, **options: Any) -> None:
        if not model.startswith("demo"):
            raise CheckpointError("does not exist", path=model, remedy="Pass another")
        if progress:
            progress("packing weights", 0.5)
        self.options = options
        self.packed: Packed | None = None
        if options.get("quantize"):
            self.packed = Packed({}, Path("packs/demo-q4_0.gguf"), 0.074, ("layers.3.mlp.up_proj.weight", 0.081))
        self.path = Path("demo.gguf")
        self.drafter = FoundDrafter(None, "no MTP drafter found: drafts come from lookup")
        self.threads, self.kv_cache_dtype = options.get("threads") or 2, "float16"
        self.tokenizer, self.measure, self.engine = ByteTokenizer(), FakeMeasure(), FakeEngine()
        self.weight_bytes, self.load_seconds, self.config = 1000, 0.5, None
        self.adapters = lora if isinstance(lora := options.get("lora"), dict) else {}
        self.asked: list[tuple[str | list[int], SamplingParams]] = []
        self.cancelled = 0
        self.made.append(self)

    @property
    def parts(self) -> FakeLLM:
        """It is its own parts, and their prompts."""
        return self

    prompts = parts

    def check_adapter(self, name: str | None) -> None:
        """It has none, and nobody asks for one."""

    def chat_prompt(self, messages: list[dict[str, str]]) -> list[int]:
        return self.conversation(messages)

    def conversation(self, messages: list[dict[str, str]], *, thinking: bool = False) -> list[int]:
        self.thinking = thinking
        return self.tokenizer.encode("|".join(f"{m['role']}={m['content']}" for m in messages))

    def turn(self, request: TurnRequest) -> Turn:
        ids = self.conversation([*request.messages], thinking=request.thinks)
        return Turn(ids, Markers(channels=self.chat is not None), request, self.tokenizer)

    def talk(self, messages: list[dict[str, str]], params: SamplingParams, *, thinking: bool) -> list[RequestOutput]:
        """`LLM.chat`, for a test that sets `chat` to it."""
        return self.generate([self.conversation(messages, thinking=thinking)], params)

    def encode(self, prompt: str | list[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def check(self, _params: SamplingParams) -> None:
        """It has no vocabulary and no grammars."""

    def generate(self, prompts: str | list[list[int]], params: SamplingParams) -> list[RequestOutput]:
        prompt = prompts if isinstance(prompts, str) else prompts[0]
        pieces = list(self.stream(prompt, params))
        tokens = tuple(token for piece in pieces for token in piece.token_ids)
        last = pieces[-1]
        text = "".join(piece.text for piece in pieces)
        assert last.finish_reason is not None
        assert last.stats is not None
        return [RequestOutput(tuple(self.encode(prompt)), tokens, text, last.finish_reason, last.stats)]

    def stream(self, prompt: str | list[int], params: SamplingParams) -> Iterator[Piece]:
        self.asked.append((prompt, params))
        if not prompt:
            raise UsageError("the prompt is empty: give it at least one token")
        return self._pieces(params)

    def _pieces(self, params: SamplingParams) -> Iterator[Piece]:
        drafting = params.draft != "off"
        answer = self.answer
        if drafting and self.unfaithful:
            answer = answer.upper()
        found = [answer.find(stop) for stop in params.stop if stop in answer]
        reason = "stop" if found else "length"
        data = (answer[: min(found)] if found else answer).encode()[: params.max_tokens]
        width = 3 if drafting else 1
        passes = [data[i : i + width] for i in range(0, len(data), width)] or [b""]
        stats = RequestStats(prefill_seconds=0.01, decode_seconds=0.01 * len(passes), load_seconds=self.load_seconds)
        stats.passes, stats.decoded_tokens = [TargetPass(width, 0.01)] * len(passes), len(data)
        if drafting:
            stats.drafted, stats.accepted = 2 * len(passes), len(data) - len(passes)
            stats.drafted_by_source = {"lookup": stats.drafted}
        try:
            for number, part in enumerate(passes):
                time.sleep(self.pause)
                last = number == len(passes) - 1
                sources = tuple("lookup" if i < len(part) - 1 else None for i in range(len(part)))
                text = _whole(data[: number * width + len(part)])[len(_whole(data[: number * width])) :]
                end = {"finish_reason": reason, "stats": stats} if last else {}
                rejected = tuple(None if source or not drafting else 0 for source in sources)
                yield Piece(text, tuple(part), sources, rejected, **end)
        except GeneratorExit:
            self.cancelled += 1
            raise


def _whole(data: bytes) -> str:
    return data.decode(errors="ignore")


def text_of(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode()

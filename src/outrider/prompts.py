"""What callers pass as prompts and parameters, checked and turned into token ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from operator import index
from typing import Any, TypeGuard

from outrider.chat.template import ChatTemplate
from outrider.chat.turn import Turn, TurnRequest, open_turn
from outrider.errors import UsageError, given
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.params import SamplingParams
from outrider.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""A text, token ids (taken as they are: no BOS is added), or a conversation."""

_PROMPTS = "a text, a list of texts, or a list of lists of token ids"


class ContextLengthError(UsageError):
    """A prompt does not fit into the context.

    Args:
        tokens: of the prompt: a number, or "at least" one.
        context: the limit.
    """

    def __init__(self, message: str, tokens: str, context: int) -> None:
        super().__init__(message)
        self.tokens, self.context = tokens, context


@dataclass
class Prompts:
    """Reads prompts for one model.

    Attributes:
        template: the model's chat template; None for a base model.
        name: of the model's file or folder, for errors.
        vocabulary: token ids that the model has logits for.
        context: most positions of one request. most_context: the model's own limit.
        adapters: names of the model's adapters.
        defaults: what a prompt without parameters gets.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    grammars: GrammarCompiler
    name: str
    vocabulary: int
    context: int
    most_context: int
    defaults: SamplingParams
    adapters: Collection[str] = ()

    def encode_all(self, prompts: str | Iterable[Prompt]) -> list[list[int]]:
        """The ids of each prompt. Raises as `encode`."""
        if isinstance(prompts, str):
            return [self.encode(prompts)]
        if not _is_sequence(prompts):
            raise UsageError(f"prompts must be {_PROMPTS}, not {given(prompts)}")
        several = list(prompts)
        for number, prompt in enumerate(several):
            if isinstance(prompt, Mapping):
                raise UsageError(f"prompts[{number}] is a dict, {given(prompt)}: pass messages to LLM.chat")
            if not _is_sequence(prompt):
                number_hint = " (the ids of one prompt go into a list of their own: [[2, 818, 5279]])"
                hint = number_hint if isinstance(prompt, Real) else ""
                raise UsageError(f"prompts must be {_PROMPTS}, but prompts[{number}] is {given(prompt)}{hint}")
        return [self._encode_one(number, several) for number in range(len(several))]

    def _encode_one(self, number: int, several: Sequence[Prompt]) -> list[int]:
        try:
            return self.encode(several[number])
        except UsageError as problem:
            raise UsageError(f"prompts[{number}]: {problem}" if len(several) > 1 else str(problem)) from None

    def encode(self, prompt: Prompt, *, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a prompt, BOS included if it is a text.

        Args:
            add_bos: begin a text with BOS.
            parse_special: read control tokens in a text, which the caller has put into the model's prompt format, as
                control tokens. A BOS that it begins with is not doubled.

        Raises:
            UsageError: it is empty, too long for the context, of a wrong type, or has ids outside the vocabulary.
        """
        if isinstance(prompt, str):
            self._check_length(prompt)
            ids = self.tokenizer.encode(prompt, add_bos=add_bos, parse_special=parse_special)
            doubled = add_bos and parse_special and ids[:1] == ids[1:2] and ids[0] in self.tokenizer.hidden
            return self._checked(ids[1:] if doubled else ids)
        if not _is_sequence(prompt):
            raise UsageError(f"a prompt must be a text or a list of token ids, not {given(prompt)}")
        tokens: list[Any] = list(prompt)
        if tokens and isinstance(tokens[0], Mapping):
            return self.conversation(tokens)
        return self._checked([_token_id(token) for token in tokens])

    def conversation(
        self, messages: Sequence[Message], *, tools: Sequence[Message] | None = None, thinking: bool = False
    ) -> list[int]:
        """The ids of a conversation in the model's prompt format, up to where the model's turn begins.

        Args:
            messages: objects with `role` ("system", "user", "assistant", "tool") and `content`, a text.
            tools: functions that the model may call, in OpenAI's format.
            thinking: let the model reason first, where its template knows of that.

        Raises:
            UsageError: as `turn`.
        """
        return self.turn(TurnRequest(messages, tools or (), template_kwargs={"enable_thinking": thinking})).ids

    def turns(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        *,
        tools: Sequence[Message] | None,
        thinking: bool | int,
    ) -> list[Turn]:
        """The next turn in one conversation, or in each of a list of them. Raises as `turn`.

        Args:
            thinking: whether the model reasons first, or for how many tokens at most.
        """
        budget = None if isinstance(thinking, bool) else thinking
        kwargs = {"enable_thinking": bool(thinking)}
        asked = [
            TurnRequest(one, tools or (), template_kwargs=kwargs, thinking_budget=budget)
            for one in self.several(messages)
        ]
        return [self.turn(request) for request in asked]

    def turn(self, request: TurnRequest) -> Turn:
        """The model's next turn in a conversation.

        Raises:
            UsageError: the model has no chat template, or it refuses these messages, or they are too long.
        """
        if self.template is None:
            raise UsageError(f"{self.name} is a base model without a chat template: give it a text to continue")
        turn = open_turn(self.template, self.tokenizer, request, self._check_length)
        self._checked(turn.ids)
        return turn

    def several(self, messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[Sequence[Message]]:
        """One conversation or several, as a list. Raises UsageError for anything else."""
        expected = 'messages must be a list of messages such as {"role": "user", "content": "Hello"}, or a list of such'
        if isinstance(messages, str) or not _is_sequence(messages):
            raise UsageError(f"{expected} lists, not {given(messages)}")
        found: list[Any] = list(messages)
        several = [found] if found and isinstance(found[0], Mapping) else found
        for one in several:
            known = isinstance(one, Sequence) and not isinstance(one, str) and one
            if not known or not all(isinstance(message, Mapping) and "role" in message for message in one):
                raise UsageError(f"{expected} lists, not {given(one)}")
        return several

    def params(self, sampling_params: object, count: int) -> list[SamplingParams]:
        """The parameters of each of `count` prompts.

        Args:
            sampling_params: None for `defaults`, one for all, or a list with one for each prompt.

        Raises:
            UsageError: as `check`; or the list has another length.
        """
        wanted: Any = self.defaults if sampling_params is None else sampling_params
        several: list[Any] = list(wanted) if isinstance(wanted, list | tuple) else [wanted] * count
        if len(several) != count:
            counts = f"sampling_params has {len(several)} entries for {count} prompts"
            raise UsageError(f"{counts}: give one for each, or one for all")
        fitted = {id(params): self.fit(params) for params in {id(params): params for params in several}.values()}
        return [fitted[id(params)] for params in several]

    def fit(self, params: SamplingParams) -> SamplingParams:
        """Checked parameters for this model: the prediction is token ids, no more than fit. Raises as `check`."""
        self.check(params)
        if not params.prediction:
            return params
        found = params.prediction
        ids = self.tokenizer.encode(found, add_bos=False) if isinstance(found, str) else found
        return replace(params, prediction=tuple(ids[: self.context]))

    def check(self, params: SamplingParams) -> None:
        """That parameters fit this model.

        Raises:
            UsageError: they name a token that it does not have, or a grammar that cannot be used (see
                `GrammarCompiler.compile`), or an adapter that is not loaded.
        """
        if not isinstance(params, SamplingParams):
            problem = f"sampling_params must be a SamplingParams or a list of them, not {given(params)}"
            raise UsageError(f"{problem}: write SamplingParams(max_tokens=64)")
        for name in ("logit_bias", "stop_token_ids", "prediction"):
            tokens = () if isinstance(found := getattr(params, name), str) else found
            wrong = next((token for token in tokens if not 0 <= token < self.vocabulary), None)
            if wrong is not None:
                raise UsageError(f"{name} names token {wrong}, outside the vocabulary of {self.vocabulary}")
        self.check_adapter(params.lora)
        if params.grammar is not None:
            self.grammars.compile(params.grammar)

    def check_adapter(self, name: str | None) -> None:
        """Raises UsageError if no adapter has this name."""
        if name is not None and name not in self.adapters:
            loaded = f"the model has {', '.join(self.adapters)}" if self.adapters else "the model has none"
            raise UsageError(f"there is no adapter {name!r}: {loaded}; load it with LLM(lora={{{name!r}: path}})")

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids:
            raise UsageError("the prompt is empty: give it at least one token")
        wrong = next((token for token in ids if not 0 <= token < self.vocabulary), None)
        if wrong is not None:
            raise UsageError(f"token id {wrong} is outside the vocabulary of {self.vocabulary}")
        if len(ids) >= self.context:
            raise self._too_long(str(len(ids)))
        return ids

    def _check_length(self, text: str) -> None:
        """Refuses a text that cannot fit before it is encoded, which would cost time and memory."""
        if len(text) > self.context and (fewest := self.tokenizer.fewest_tokens(text)) >= self.context:
            raise self._too_long(f"at least {fewest}")

    def _too_long(self, tokens: str) -> ContextLengthError:
        remedy = "shorten it" + (" or raise context" if self.context < self.most_context else "")
        message = f"the prompt has {tokens} tokens and leaves no room in a context of {self.context}: {remedy}"
        return ContextLengthError(message, tokens, self.context)


def _is_sequence(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable) and not isinstance(value, Mapping | bytes)


def _token_id(token: Any) -> int:
    try:
        return index(token)
    except TypeError:
        raise UsageError(f"a token id must be a whole number, not {given(token)}") from None

"""From the models that a command names to the slots of a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

from outrider.chat.template import chat_template_of
from outrider.checkpoints.chat_template import is_refusing
from outrider.console import KvCacheDtype, Quantize, load_model
from outrider.drafters.pairing import choose_drafter
from outrider.errors import OutriderError
from outrider.fit import USUAL_CONTEXT, Footprint, Needs, Setting
from outrider.load_options import LoadOptions
from outrider.loading import context_of, open_drafters, open_target
from outrider.quant import Quantization
from outrider.server.host import Host
from outrider.server.memory_shares import Shares
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.slot import About, Slot
from outrider.tokenizer import open_tokenizer
from outrider.tokenizer.encoders import Encoders

_log = logging.getLogger("outrider.server")


class Sources:
    """Makes slots.

    Args:
        options: of loading that all models have, as `load_model` takes them.
        scheduling: arguments of each model's `Scheduler`.
        shared: whether other processes use the machine's memory too.
    """

    def __init__(
        self, host: Host, options: Mapping[str, Any], scheduling: Mapping[str, int], *, shared: bool = False
    ) -> None:
        self.host, self._options, self._scheduling, self._shared = host, options, scheduling, shared

    def slots(
        self, models: Mapping[str, Sequence[str]], own: Mapping[str, Any], required: Collection[str]
    ) -> list[Slot]:
        """A slot for each model. Those that share memory are opened, but not loaded, so that a wrong one is found now.

        Args:
            models: the names of each, by what it is loaded from.
            own: options of loading that the first alone has.
            required: those of them that must be there; others that cannot be opened are left out, with a warning.

        Raises:
            OutriderError: a required one cannot be opened, or none can.
        """
        found, problem, alone = [], None, len(models) == 1 and not self._shared
        for number, (model, names) in enumerate(models.items()):
            options = {**self._options, **({} if number else own)}
            try:
                about, needs, encoders = (None, None, None) if alone else _opened(model, options)
            except OutriderError as error:
                if model in required:
                    raise
                _log.warning("%s is left out: %s", names[0], error)
                problem = error
                continue
            adapters = lora if isinstance(lora := options.get("lora"), dict) else {}
            load = partial(self._load, model, options)
            found.append(Slot(names, load, adapters=tuple(adapters), needs=needs, about=about, encoders=encoders))
        if not found and problem is not None:
            raise problem
        return found

    def _load(
        self,
        model: str,
        options: Mapping[str, Any],
        slot: Slot,
        shares: Shares | None,
        check: Callable[[], None] | None,
    ) -> Service:
        given = dict(options)
        if shares is not None:
            given["kv_cache_bytes"] = shares.kv_cache
            if given.get("prefix_cache_bytes") is None:
                given["prefix_cache_bytes"] = shares.prefix_cache
        if check is not None:
            given["progress"] = lambda _what, _fraction: check()
        llm = load_model(model, **given)
        scheduler = Scheduler(
            llm,
            limits=self.host.limits,
            finished=slot.metrics.finished,
            turns=self.host.turns,
            **self._scheduling,
        )
        return Service(llm, scheduler, self.host, name=slot.name)


def _opened(model: str, options: Mapping[str, Any]) -> tuple[About, Needs, Encoders | None]:
    """What a model can do, how much memory it needs, and its tokenizer's encoders. Raises OutriderError."""
    quantize, kv_format = options["quantize"], options["kv_cache_dtype"]
    assert isinstance(quantize, Quantize)
    assert isinstance(kv_format, KvCacheDtype)
    wanted = options["context"]
    checkpoint, config, tables = open_target(model)
    template = chat_template_of(tables)
    tokenizer = open_tokenizer(tables, path=checkpoint.path, written="" if template is None else template.written)
    drafter = choose_drafter(model, checkpoint.path, config, options["drafter"])
    drafters = open_drafters(drafter.path, config, LoadOptions())
    context = context_of(config, wanted)
    tensors = drafters[None].tensors if None in drafters else {}
    setting = Setting(
        context if wanted else min(context, USUAL_CONTEXT),
        kv_format.value,
        None if quantize is Quantize.none else cast("Quantization", quantize.value),
    )
    chat = template is not None and not is_refusing(template.source)
    return About(context, chat), Footprint(config, checkpoint.tensors, tensors).needs(setting), tokenizer.encoders

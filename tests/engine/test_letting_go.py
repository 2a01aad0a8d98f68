"""A model that nobody holds any more gives its memory back at once."""

from __future__ import annotations

import gc
import weakref

from outrider import LLM, Grammar, SamplingParams


def test_a_model_let_go_of_is_freed_without_a_garbage_collection(tiny, word_tokenizer):
    llm = LLM(tiny("gemma4-e2b").gguf, threads=1, context=256, lookup_history=256)
    word_tokenizer(llm)
    llm.generate([[2, 5, 7, 5, 7]], SamplingParams(max_tokens=8))
    list(llm.stream([2, 5, 7], SamplingParams(max_tokens=8, grammar=Grammar.regex("[a-z ]{3}"))))
    engine = llm.parts.engine
    parts = [llm, llm.parts, engine, engine.target, llm.parts.caches, engine.planner, *engine.planner.drafters]
    watched = [weakref.ref(part) for part in parts]
    gc.collect()
    gc.disable()
    try:
        del llm, engine, parts
        assert [ref() for ref in watched if ref() is not None] == []
    finally:
        gc.enable()

from __future__ import annotations

import numpy as np
import pytest
from chat.formats import CONTROL

from outrider.checkpoints import TokenizerTables
from outrider.tokenizer.token_kinds import BYTE, NORMAL, USER_DEFINED
from outrider.tokenizer.token_kinds import CONTROL as CONTROL_KIND

SHOWN = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'}


@pytest.fixture(scope="session")
def small_gemma4_tables() -> TokenizerTables:
    """A GGUF's tables with letters, bytes, and control tokens as llama.cpp's converter declares them."""
    tokens = [*CONTROL, "<h1>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz<>|_\n"]
    kinds = [USER_DEFINED if token in SHOWN or token == "<h1>" else NORMAL for token in tokens]
    kinds = [CONTROL_KIND if t in CONTROL and t not in SHOWN else k for t, k in zip(tokens, kinds, strict=True)]
    kinds = [BYTE if token.startswith("<0x") else kind for token, kind in zip(tokens, kinds, strict=True)]
    types = np.array(kinds, np.int32)
    return TokenizerTables("gemma4", tokens, None, types, [], 2, 1, None, True, False, None)

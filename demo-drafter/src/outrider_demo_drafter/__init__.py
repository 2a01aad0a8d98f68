"""The MTP drafter for outrider's demo model; outrider finds it here."""

from pathlib import Path

DRAFTER = Path(__file__).with_name("gemma-3-270m-drafter.gguf")

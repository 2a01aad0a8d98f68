from __future__ import annotations

from outrider.errors import CheckpointError


def test_control_characters_of_a_files_names_are_escaped():
    error = CheckpointError("holds the tensor blk.3\n\x1b[2Jx", path="a/\tb.gguf", remedy="Use another \ud800")
    assert str(error) == r"a/\tb.gguf: holds the tensor blk.3\n\x1b[2Jx. Use another \ud800."

"""Imports run one way: each layer sees only those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "outrider"

LAYERS = [  # low to high; those of one line do not import each other
    {"system"},
    {"arrays", "atomic_file", "errors", "machine", "user_cache"},
    {"checkpoints", "claimed_cores", "cores"},
    {"tokenizer"},
    {"executor", "program", "rope"},
    {"backends"},
    {"quant"},
    {"models"},
    {"assembly"},
    {"cache"},
    {"sampling"},
    {"chat", "drafters"},
    {"speculation"},
    {"engine"},
    {"roofline"},
    {"fit", "load_options", "progress", "prompts"},
    {"loading"},
    {"llm"},
    {"outrider"},
    {"console"},
    {"bench", "server", "train"},
    {"ray"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def layer_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "outrider" if first == "__init__" else first


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"outrider.{a.name}" for a in node.names} if node.module == "outrider" else {str(node.module)}
    return found


def imported_layers(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported_modules(path) if name.split(".")[0] == "outrider"]
    return {part[1] if len(part) > 1 and part[1] in LEVEL else "outrider" for part in parts}


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_imports_go_down(path):
    own = layer_of(path)
    assert own in LEVEL, f"{own} is in no layer: add it to LAYERS"
    for other in imported_layers(path) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{path.relative_to(SOURCE)} ({own}) imports {other}, which is not below it"


def test_every_file_has_one_screenful_of_subject():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 400, f"{path} has grown past one subject"
        assert path.stem not in {"utils", "common", "misc", "helpers"}


def test_only_training_needs_the_gguf_package():
    """It is in the extra `train`, not in the base install."""
    for path in FILES:
        needs = {name.split(".")[0] for name in imported_modules(path)}
        assert "gguf" not in needs or layer_of(path) == "train", path

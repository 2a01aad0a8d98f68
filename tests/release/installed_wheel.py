"""The wheel in dist/ in a fresh environment whose PATH has no compiler, compared with the build from source.

`make wheel-test` runs this after `make wheel`; it needs the package registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "release"))
from wheel_at_hand import wheel_at_hand  # noqa: E402

MOST_BYTES = 15_000_000
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "python-zig")
PROMPT = ("run", "demo", "one two three four one two three four one two", "--max-tokens", "24", "--json")
FAST_TESTS = ("lossless/test_golden.py", "drafters/test_pairing.py", "server/test_openai.py", "test_kernels.py")


@pytest.fixture(scope="module")
def wheel():
    found = wheel_at_hand(ROOT)
    assert found is not None, "make wheel comes first"
    return found


class Environment:
    """A virtual environment in which commands see no other program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.path = str(folder / "bin")
        self.packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"

    def run(self, program: str, *arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [self.folder / "bin" / program, *arguments]
        environment = {**os.environ, "PATH": self.path, "PYTHONPATH": ""}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("fresh") / "venv")
    pip = ("pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    environment.run(*pip, f"{wheel}[demo]")
    return environment


def answer(ran: subprocess.CompletedProcess[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_no_compiler_is_there(installed):
    assert [name for name in COMPILERS if shutil.which(name, path=installed.path)] == []


def test_it_is_small(wheel):
    assert wheel.stat().st_size < MOST_BYTES


def test_it_says_what_its_demo_lacks_and_drafts_by_lookup(installed):
    found = answer(installed.run("outrider", "inspect", "demo", "--json"))
    assert found["drafter_path"] is None
    assert "pip install outrider-demo-drafter" in str(found["drafter_why"])
    ran = answer(installed.run("outrider", *PROMPT))
    assert ran["stats"]["accepted"] > 0


def test_its_demo_answers_like_the_build_from_source(installed):
    installed.run("pip", "install", "--quiet", "--no-index", "--find-links", ROOT / "dist", "outrider-demo-drafter")
    found = answer(installed.run("outrider", "inspect", "demo", "--json"))
    assert "from outrider-demo-drafter" in str(found["drafter_why"])
    command = [sys.executable, "-c", "from outrider.cli import main; main()", *PROMPT]
    source = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs, ours = answer(source), answer(installed.run("outrider", *PROMPT))
    assert ours["token_ids"] == theirs["token_ids"]
    assert ours["stats"]["drafted"] > 0


def test_fast_tests_pass_with_it(installed):
    theirs = [path for path in sys.path if path.endswith("site-packages")]
    (installed.packages / "what-tests-need.pth").write_text("\n".join(theirs))
    where = installed.run("python", "-c", "import outrider; print(outrider.__file__)").stdout
    assert where.startswith(str(installed.packages)), "the tests would not test the wheel"
    ran = installed.run("python", "-m", "pytest", "-m", "not slow", *FAST_TESTS, folder=ROOT / "tests")
    assert " passed" in ran.stdout

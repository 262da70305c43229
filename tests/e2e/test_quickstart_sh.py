"""What deploy/quickstart.sh does before the product starts: finds a Python, makes .venv once, or says why not.

A small program stands in for Python where the real one would download: it makes an environment of two scripts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)
REPOSITORY = Path(__file__).resolve().parents[2]

PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv")
    {venv}
    echo made >>"$MADE"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '%s\\n' '#!/bin/sh' 'pwd' 'for each; do echo "<$each>"; done' >"$3/bin/stateward"
    chmod +x "$3/bin/stateward" ;;
"-m pip") {pip} ;;
*) exec "{real}" "$@" ;;
esac
"""


class Clone:
    """A clone in a path with spaces, run from another folder, with a Python of our making first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my clone of it"
        shutil.copytree(REPOSITORY / "deploy", self.root / "deploy")
        shutil.copy(REPOSITORY / "pyproject.toml", self.root)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.made = folder / "made"
        self.python = folder / "a python"
        self.environment = {"PATH": os.environ["PATH"], "PYTHON": str(self.python), "MADE": str(self.made)}
        self.pretend()

    def pretend(self, *, venv: str = "", pip: str = "", whole: str = "") -> None:
        self.python.write_text(whole or PYTHON.format(venv=venv or ":", pip=pip or ":", real=sys.executable))
        self.python.chmod(0o755)

    def command(self, *arguments: str) -> tuple[str, ...]:
        return ("sh", str(self.root / "deploy" / "quickstart.sh"), *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.elsewhere,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def times_made(self) -> int:
        return len(self.made.read_text().split()) if self.made.exists() else 0

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / ".stateward-stamp"


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_arguments_and_the_callers_folder_reach_the_program(clone: Clone) -> None:
    done = clone.run("--data", "a folder", "--once", "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(clone.elsewhere),
        "<quickstart>",
        "<--data>",
        "<a folder>",
        "<--once>",
        "<>",
    ]


def test_a_second_run_installs_nothing_and_says_nothing(clone: Clone) -> None:
    clone.run()
    again = clone.run("--help")
    assert clone.times_made == 1
    assert again.stderr == ""
    assert "<--help>" in again.stdout


@pytest.mark.parametrize("changed", ["pyproject.toml", "deploy/requirements.txt"])
def test_a_change_of_what_is_needed_makes_it_anew(clone: Clone, changed: str) -> None:
    clone.run()
    with (clone.root / changed).open("a") as file:
        file.write("\n# another\n")
    assert clone.run().returncode == 0
    assert clone.times_made == 2


def test_a_moved_clone_is_made_anew(clone: Clone) -> None:
    """The scripts of an environment hold its path."""
    clone.run()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    assert clone.run().returncode == 0
    assert clone.times_made == 2


def test_an_interrupted_install_is_made_anew(clone: Clone) -> None:
    clone.pretend(pip="sleep 30")
    with subprocess.Popen(
        clone.command(), cwd=clone.elsewhere, env=clone.environment, stderr=subprocess.PIPE, start_new_session=True
    ) as running:
        deadline = time.monotonic() + 10
        while not (clone.root / ".venv" / "bin" / "stateward").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        # As Ctrl-C on a terminal does, and again as a person would: between two commands the shell holds it back until
        # the next has ended.
        deadline = time.monotonic() + 10
        while running.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGINT)
            time.sleep(0.5)
        assert running.poll() not in {None, 0}
    assert not clone.stamp.exists()
    clone.pretend()
    assert clone.run().returncode == 0
    assert clone.times_made == 2
    assert clone.stamp.exists()


def test_a_python_that_is_too_old_is_named(clone: Clone) -> None:
    clone.pretend(whole="#!/bin/sh\necho 3.9 False\n")
    done = clone.run()
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("Python 3.11 or newer is needed, and ")
    assert first.endswith("is Python 3.9.")
    assert "apt install python3" in second


def test_no_python_at_all_is_said(clone: Clone) -> None:
    clone.environment["PYTHON"] = "no-such-python"
    done = clone.run()
    assert done.returncode == 2
    assert "no no-such-python was found" in done.stderr


@pytest.mark.parametrize(
    ("failure", "code", "sentence", "step"),
    [
        ("venv=ensurepip is not available", 2, "its module venv is not complete", "-venv; as root"),
        ("pip=OSError: [Errno 28] No space left on device", 4, "The disk is full", "Free space"),
        ("pip=NewConnectionError: Connection refused", 6, "The package index cannot be reached", "Check the network"),
        ("pip=ERROR: no match (from versions: none)", 6, "The package index cannot be reached", "Check the network"),
        ("pip=THESE PACKAGES DO NOT MATCH THE HASHES", 7, "does not have the hash", "Do not install it"),
        ("pip=Permission denied", 2, "cannot be written", "the owner of that folder"),
    ],
)
def test_a_failure_is_a_sentence_and_a_step(clone: Clone, failure: str, code: int, sentence: str, step: str) -> None:
    where, _, text = failure.partition("=")
    clone.pretend(**{where: f'echo "{text}" >&2; exit 1'})
    done = clone.run()
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr.splitlines()[-2]
    assert step in done.stderr.splitlines()[-1]
    assert not clone.stamp.exists()


def test_the_lists_name_no_index_and_no_path() -> None:
    for name in ("deploy/requirements.txt", "tests/requirements.txt"):
        text = (REPOSITORY / name).read_text()
        for forbidden in ("://", "--index-url", "--extra-index", "--find-links", "--trusted-host", " /"):
            assert forbidden not in text, (name, forbidden)
        assert "zstandard==0.25.0" in text

"""Both programs, run as a person runs them: real processes, an environment of their own, and what they said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = os.geteuid() == 0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> Any:
        """The JSON document on stdout, which is the only thing there."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error that a program run with --json says last."""
        found: dict[str, str] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return found

    def refused(self, exit_code: int, code: str, *words: str) -> Done:
        """Assert an error of the tree: exit code, stable code, a sentence with `words`, and a next step."""
        assert self.code == exit_code, (self.out, self.err)
        assert self.error["code"] == code, self.err
        for word in words:
            assert word in self.error["message"], self.err
        assert self.error["next_step"]
        assert "Traceback" not in self.err
        return self

    def fine(self) -> Any:
        """Assert that it ended well; its document."""
        assert self.code == 0, (self.code, self.out, self.err)
        return self.document


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of ours: no credentials, no settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def operator(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "coordinator", *map(str, arguments)]


def worker(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "worker", *map(str, arguments)]


def run(command: list[str], environ: dict[str, str], *, timeout_s: float = 120, **more: Any) -> Done:
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **more,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr, seconds=time.monotonic() - began)


def together(call: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """What `call` gives for each, two at a time: starting a program is most of what a short one costs."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(call, items))


class Started:
    """A program that runs beside the test; what it says goes to files."""

    def __init__(self, command: list[str], environ: dict[str, str], folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def printed(self) -> str:
        return self._out.read_text(errors="replace")

    def says(self, words: str, *, within_s: float = 90) -> None:
        """Wait until it said `words` on stderr. Fails when it ends before."""
        until(lambda: words in self.said or self.process.poll() is not None, within_s=within_s)
        assert words in self.said, (self.process.poll(), self.said)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = 60) -> Done:
        code = self.process.wait(timeout_s)
        return Done(code=code, out=self.printed, err=self.said, seconds=time.monotonic() - self._began)


@contextmanager
def started(command: list[str], environ: dict[str, str], folder: Path) -> Iterator[Started]:
    """Ended by force with the block, if it still runs."""
    folder.mkdir(exist_ok=True)
    program = Started(command, environ, folder)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                program.process.wait(30)
            program.process.kill()
            program.process.wait()


def until(holds: Callable[[], T], *, within_s: float = 30, every_s: float = 0.05) -> T:
    """Wait until something holds, and give it."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"it does not hold within {within_s} seconds"
        time.sleep(every_s)
    return found


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    argv: str
    environ: str


def processes(*marks: str) -> list[Process]:
    """Processes that name one of `marks` in argument, environment or working directory; not this one."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            argv = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (folder / "environ").read_bytes().replace(b"\0", b"\n").decode(errors="replace")
            where = str((folder / "cwd").readlink())
            if argv and any(mark in text for mark in marks for text in (argv, environ, where)):
                found.append(Process(pid=int(folder.name), argv=argv, environ=environ))
    return found


def left_of(data: Path) -> list[Process]:
    """What still runs of an embedded system with this data folder: by its path, or by the mark of its run."""
    mark = data / "run" / "mark"
    marks = [str(data), *([mark.read_text().strip()] if mark.exists() else [])]
    return processes(*marks)


def content_of(folder: Path) -> dict[str, bytes]:
    """Every regular file below, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def below(restored: Path, source: Path) -> Path:
    """Where `recover` puts an absolute path."""
    return restored / source.relative_to("/")

"""How fast a standalone backup and restore of one large file is, on a directory vault.

    python tests/bench/standalone.py [--size 2GiB] [--runs 3] [--file FILE]

Prints medians: MB/s of source, seconds, CPU seconds and peak resident memory of the whole process. Nothing is asserted:
machines differ. Without --file it makes a file of real binaries (this machine's shared libraries, repeated as needed
with a counter in every 64 KiB, so that repetition does not deduplicate).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PASSPHRASE = "a passphrase for measuring only"
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}
STEP = 64 * 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="2GiB")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--file", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="stateward-bench-") as name:
        folder = Path(name)
        source = folder / "source"
        source.mkdir()
        data = given.file or make_data(source / "image", size_of(given.size))
        rows = [measure(folder / f"run-{number}", data) for number in range(given.runs)]
    print(f"{data.stat().st_size if data.exists() else size_of(given.size):,} bytes, {given.runs} runs, medians")
    print(f"{'':<12}{'seconds':>9}{'MB/s':>9}{'CPU s':>9}{'peak MB':>9}")
    for step in rows[0]:
        figures = [statistics.median(row[step][at] for row in rows) for at in range(4)]
        print(f"{step:<12}{figures[0]:>9.2f}{figures[1]:>9.0f}{figures[2]:>9.2f}{figures[3]:>9.0f}")


def measure(folder: Path, data: Path) -> dict[str, tuple[float, float, float, float]]:
    folder.mkdir()
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    vault = f"file://{folder / 'vault'}"
    state = ("--state", str(folder / "state"))
    common = ("--vault", vault)
    worker("init", *common, *state, "--passphrase-file", str(folder / "passphrase"))
    size = data.stat().st_size
    steps = {
        "first": ("backup", *common, *state, str(data)),
        "unchanged": ("backup", *common, *state, str(data)),
        "re-read": ("backup", *common, *state, "--reread", str(data)),
        "restore": (
            "recover", *common, "--passphrase-file", str(folder / "passphrase"), "--to", str(folder / "out"),
        ),
    }  # fmt: skip
    rows = {}
    for name, arguments in steps.items():
        seconds, cpu, peak = worker(*arguments)
        rows[name] = (seconds, size / seconds / 1e6, cpu, peak)
    shutil.rmtree(folder)
    return rows


def worker(*arguments: str) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak MB) of one command."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    begun = time.monotonic()
    process = subprocess.Popen(
        (sys.executable, "-m", "worker", *arguments, "--json"), env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    if status:
        sys.exit(f"{arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    json.loads(output)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def make_data(path: Path, size: int) -> Path:
    """Real binaries, `size` bytes of them."""
    libraries = sorted(Path("/usr/lib").rglob("*.so*"))
    written = 0
    with path.open("wb") as out:
        while written < size:
            before = written
            for library in libraries:
                if written >= size:
                    break
                if library.is_symlink() or not library.is_file():
                    continue
                with library.open("rb") as piece:
                    while written < size and (content := bytearray(piece.read(min(STEP, size - written)))):
                        content[:8] = written.to_bytes(8, "little")
                        out.write(content)
                        written += len(content)
            if written == before:
                out.write(os.urandom(size - written))
                written = size
    return path


def size_of(text: str) -> int:
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    sys.exit(f"--size is a number with MiB or GiB, not {text!r}")


if __name__ == "__main__":
    main()

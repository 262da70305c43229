# ruff: noqa: E402
"""What the system state of a Linux machine is: where its configuration lives, and facts that are in no file.

Left out on purpose: kernels, initial RAM disks and installed files, which packages bring back.
"""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from worker.platform.api import SourceRoot, SystemState
from worker.platform.linux import facts
from worker.platform.reasons import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/")
_FOLDERS = (
    "etc",
    "usr/local/etc",
    "usr/local/lib/systemd",
    "usr/lib/systemd/system-preset",
    "usr/lib/systemd/user-preset",
    "var/lib/systemd/linger",
    "var/spool/cron",
    "var/spool/at",
    "var/lib/dpkg",
    "var/lib/apt/extended_states",
    "var/lib/rpm",
    "usr/lib/sysimage/rpm",
    "var/lib/dnf",
    "boot/grub",
    "boot/grub2",
    "boot/loader",
    "boot/extlinux",
    "boot/cmdline.txt",
    "boot/config.txt",
    "boot/firmware/cmdline.txt",
    "boot/firmware/config.txt",
)
_GLOBS = ("opt/*/etc",)
_EFI = ("boot/efi/EFI", "boot/efi/loader", "efi/loader", "efi/EFI")
_EFI_CONFIGURATION = frozenset((".cfg", ".conf", ".csv"))
FACTS_IN_TREE = b".stateward/system-state"


def system_state(scratch: Path, root: Path = _ROOT) -> SystemState:
    """Write the facts below `scratch` and name every root that exists.

    A fact that did not change keeps its file untouched, so a later backup finds nothing new.
    """
    folder = scratch / "system-state"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    warnings = _write_facts(folder)
    roots = [SourceRoot(real=os.fsencode(path), tree=_tree(path, root)) for path in _existing(root)]
    roots.append(SourceRoot(real=os.fsencode(folder.resolve()), tree=FACTS_IN_TREE))
    return SystemState(roots=tuple(roots), warnings=tuple(warnings))


def _existing(root: Path) -> Iterator[Path]:
    for name in _FOLDERS:
        path = root / name
        if os.path.lexists(path) and _parents_are_real(path, root):
            yield path
    for glob in _GLOBS:
        yield from sorted(path for path in root.glob(glob) if path.is_dir() and _parents_are_real(path, root))
    for name in _EFI:
        for folder, folders, files in os.walk(root / name):
            folders.sort()
            yield from (Path(folder, file) for file in sorted(files) if Path(file).suffix.lower() in _EFI_CONFIGURATION)


def _parents_are_real(path: Path, root: Path) -> bool:
    """Whether the path is what it says: through a link it would appear twice, or somewhere else."""
    return path.parent.resolve() == root.resolve() / path.parent.relative_to(root)


def _tree(path: Path, root: Path) -> bytes:
    return os.fsencode(path.relative_to(root))


def _write_facts(folder: Path) -> list[tuple[str, str]]:
    warnings: list[tuple[str, str]] = []
    written = set()
    for name, collect in facts.COLLECTORS.items():
        try:
            found = collect()
        except OSError as error:
            warnings.append((name, in_words(error)))
            continue
        except ValueError as error:
            warnings.append((name, f"its source could not be understood: {error}"))
            continue
        if found is not None:
            _write_if_new(folder / f"{name}.json", found)
            written.add(f"{name}.json")
    for file in folder.iterdir():
        if file.name not in written:
            file.unlink()
    return warnings


def _write_if_new(file: Path, found: object) -> None:
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    if file.exists() and file.read_text(encoding="ascii") == text:
        return
    temporary = file.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="ascii")
    temporary.replace(file)

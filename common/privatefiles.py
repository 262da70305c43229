"""Files that only this account may read, replaced whole: after a crash the old content or the new one is there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def make_private_folder(path: Path) -> Path:
    """The folder, with mode 0700 also when it was there with more."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes | str) -> None:
    """Write `content` under `path` with mode 0600, durably and in one step."""
    draft = _draft(path, content)
    draft.replace(path)
    sync_folder(path.parent)


def create_private(path: Path, content: bytes | str) -> bool:
    """As `write_private`, but only where nothing is: False, and nothing done, when the name is taken."""
    draft = _draft(path, content)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_folder(path.parent)
    return True


def _draft(path: Path, content: bytes | str) -> Path:
    """A durable file beside `path`, under a name that no other process uses."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def remove(path: Path) -> None:
    """Delete durably; a file that is gone already is fine."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folders; there a rename is durable with its volume
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

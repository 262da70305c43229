"""Whether a restored file is what its entry says, by name of what differs.

What the user who restored may not set (owners, set-user-id bits, security attributes) counts only when he may.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from common.vault.entry import Entry, Kind
from worker.platform.api import SourceFile, SourceFiles, SourceUnreadable
from worker.platform.reasons import VANISHED, in_words
from worker.reading import content_digest, open_source

if TYPE_CHECKING:
    from pathlib import Path

_SET_ID = 0o6000
_PRIVILEGED = (b"security.", b"trusted.")
_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)


class Comparison:
    """Compares entries of one tree with what stands below `root`. Remembers first names of hard links, nothing else."""

    def __init__(self, files: SourceFiles, root: Path, *, permitted_owner: bool) -> None:
        self._files = files
        self._root = os.fsencode(root)
        self._permitted = permitted_owner
        self._first: dict[tuple[int, int], tuple[bytes, tuple[int, int]]] = {}

    def differences(self, entry: Entry, *, content: bool = True) -> list[str]:
        """Sentences without the path; empty when nothing differs. `content` compares the bytes by BLAKE3, too."""
        real = self._files.join(self._root, entry.path)
        unread: list[str] = []
        try:
            found = self._files.describe(real, entry.path, lambda _path, reason: unread.append(reason))
        except OSError as error:
            reason = in_words(error)
            return ["missing" if reason == VANISHED else f"cannot be read: {reason}"]
        if found.kind != entry.kind:
            return [f"kind: {_kind(entry.kind)} became {_kind(found.kind)}"]
        differing = [*unread, *self._metadata(entry, found), *self._links(entry, found)]
        if content and entry.kind == Kind.FILE and entry.size == found.size:
            differing += self._content(entry, SourceFile(entry=found, real=real))
        return differing

    def _metadata(self, entry: Entry, found: Entry) -> list[str]:
        mode_mask = 0o7777 if self._permitted else 0o7777 & ~_SET_ID
        pairs: list[tuple[str, object, object]] = [
            ("size", entry.size, found.size),
            ("modification time", entry.mtime, found.mtime),
            ("link target", entry.target, found.target),
        ]
        if entry.kind != Kind.SYMLINK:
            pairs.append(("mode", oct(entry.mode & mode_mask), oct(found.mode & mode_mask)))
        if entry.kind in _DEVICES:
            pairs.append(("device number", entry.node, found.node))
        if self._permitted:
            pairs.append(("owner", (entry.uid, entry.gid), (found.uid, found.gid)))
        differing = [f"{name}: {before} became {after}" for name, before, after in pairs if before != after]
        before, after = self._comparable(entry), self._comparable(found)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        return differing + [f"extended attribute {name.decode('ascii', 'backslashreplace')}" for name in changed]

    def _comparable(self, entry: Entry) -> dict[bytes, bytes]:
        return {name: value for name, value in entry.xattrs if self._permitted or not name.startswith(_PRIVILEGED)}

    def _links(self, entry: Entry, found: Entry) -> list[str]:
        """Two entries that are one file at the source must be one file here."""
        if entry.links < 2 or entry.kind == Kind.DIRECTORY:  # noqa: PLR2004 - one name is its own
            return []
        here = (found.device, found.inode)
        path, first = self._first.setdefault((entry.device, entry.inode), (entry.path, here))
        return [] if first == here else [f"hard link: no longer the same file as {path!r}"]

    def _content(self, entry: Entry, source: SourceFile) -> list[str]:
        try:
            with open_source(self._files, source) as handle:
                return [] if content_digest(handle) == entry.digest else ["content"]
        except SourceUnreadable as error:
            return [f"cannot be read: {error.reason}"]


def _kind(kind: int) -> str:
    return Kind(kind).name.lower().replace("_", " ") if kind in frozenset(Kind) else f"kind {kind}"

"""The walk: every file below the roots, once, in tree order, in constant memory.

Tree order (`common.vault.entry.path_order`) is a depth-first walk with the names of each directory sorted as bytes.
Several roots become one tree: folders between them appear with their real metadata, and a root inside another root is
walked once. Only the names of the open directories are held. Whatever cannot be read is a warning, never the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.vault.entry import Entry, Kind
from worker.excludes import Excludes
from worker.platform.api import SourceFile, SourceFiles, SourceRoot, Warn
from worker.platform.reasons import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NOTHING = Excludes(())
_BETWEEN_MODE = 0o755
_SEPARATOR = b"/"


def scan(
    roots: Iterable[SourceRoot],
    *,
    files: SourceFiles,
    warn: Warn,
    excludes: Excludes = _NOTHING,
    one_file_system: bool = False,
) -> Iterator[SourceFile]:
    """Yield everything below the roots, directories before what they hold.

    Args:
        roots: where to start; of two with the same place in the tree the later one counts.
        files: how this machine's files are read.
        warn: called with tree path and reason for what cannot be listed or described.
        excludes: what is left out with all below it, roots too.
        one_file_system: list a directory on another file system than its root's, but not what it holds.
    """
    top = _plan(roots)
    walk = _Walk(files=files, warn=warn, excludes=excludes, one_file_system=one_file_system)
    device = walk.device_of(top.real)
    stack = [walk.open_directory(_Place(tree=b"", real=top.real, planned=top, device=device, root_device=device))]
    while stack:
        place = next(stack[-1], None)
        if place is None:
            stack.pop()
            continue
        found = walk.describe(place)
        if found is None:
            continue
        yield found
        if found.entry.kind == Kind.DIRECTORY:
            stack.append(walk.enter(place, found))


@dataclass(slots=True)
class _Planned:
    """A folder at a root (`real`) or on the way to one (`beside`: where that folder really is, if it is known)."""

    real: bytes | None = None
    beside: bytes | None = None
    children: dict[bytes, _Planned] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Place:
    tree: bytes
    real: bytes | None
    planned: _Planned | None
    device: int | None
    """The device of the directory it is in."""
    root_device: int | None
    """The device of the root it is below."""


def _plan(roots: Iterable[SourceRoot]) -> _Planned:
    top = _Planned()
    for root in roots:
        node = top
        names = [name for name in root.tree.split(_SEPARATOR) if name]
        for depth, name in enumerate(names, start=1):
            node = node.children.setdefault(name, _Planned())
            node.beside = node.beside or _parent_at(root, names[depth:])
        node.real = root.real
    return top


def _parent_at(root: SourceRoot, below: list[bytes]) -> bytes | None:
    """Where a folder leading to a root really is, if the root's real path ends like its path in the tree."""
    tail = b"".join(_SEPARATOR + name for name in below)
    real = root.real.replace(b"\\", _SEPARATOR) if b"\\" in root.tree else root.real
    return root.real[: len(root.real) - len(tail)] if real.endswith(tail) and len(real) > len(tail) else None


@dataclass(slots=True, kw_only=True)
class _Walk:
    files: SourceFiles
    warn: Warn
    excludes: Excludes
    one_file_system: bool

    def device_of(self, real: bytes | None) -> int | None:
        try:
            return self.files.describe(real, b"", self.warn).device if real is not None else None
        except OSError:
            return None  # listing it will say why

    def describe(self, place: _Place) -> SourceFile | None:
        if self.excludes.match(place.tree):
            return None
        leads_on = place.planned is not None and bool(place.planned.children)
        real = place.real
        if real is None and place.planned is not None:
            real = place.planned.beside
        try:
            entry = self.files.describe(real, place.tree, self.warn) if real is not None else None
        except OSError as error:
            if not leads_on:
                self.warn(place.tree, in_words(error))
                return None
            entry = None
        if entry is None or (leads_on and entry.kind != Kind.DIRECTORY):
            # A folder that only leads to a root and is not a folder here (or nowhere): any will do.
            entry = Entry(path=place.tree, kind=Kind.DIRECTORY, mode=_BETWEEN_MODE)
            real = None
        return SourceFile(entry=entry, real=real or b"")

    def enter(self, place: _Place, found: SourceFile) -> Iterator[_Place]:
        """What a directory holds, or nothing where the walk must not go on."""
        device = found.entry.device if found.real else None
        is_root = place.planned is not None and place.planned.real is not None
        below = _Place(
            tree=place.tree,
            real=place.real if found.real else None,
            planned=place.planned,
            device=device,
            root_device=device if is_root else place.root_device,
        )
        if below.real is not None and device is not None and not is_root and self._stops(place, below.real, device):
            below.real = None
        return self.open_directory(below)

    def _stops(self, place: _Place, real: bytes, device: int) -> bool:
        if self.one_file_system and device != place.root_device:
            return True
        return self.files.is_pseudo(real, device) if device != place.device else self.files.is_pseudo(real, -1)

    def open_directory(self, place: _Place) -> Iterator[_Place]:
        names: list[bytes] = []
        if place.real is not None:
            try:
                names = self.files.names(place.real)
            except OSError as error:
                self.warn(place.tree, f"its content could not be listed: {in_words(error)}")
        planned = place.planned.children if place.planned is not None else {}
        if planned:
            names = list({*names, *planned})
        names.sort()
        return self._places(place, names, planned)

    def _places(self, place: _Place, names: list[bytes], planned: dict[bytes, _Planned]) -> Iterator[_Place]:
        prefix = place.tree + _SEPARATOR if place.tree else b""
        for name in names:
            node = planned.get(name)
            real = node.real if node is not None else None
            if real is None and place.real is not None:
                real = self.files.join(place.real, name)
            yield _Place(
                tree=prefix + name, real=real, planned=node, device=place.device, root_device=place.root_device
            )

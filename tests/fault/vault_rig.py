"""A standalone host, its vault and its source folder, as one object for tests.

Making keys costs Argon2 twice, so a rig is made once and copied: `copy` gives a vault and a state folder of their own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from common.contracts.jobs import BackupSpec, JobReport
from common.secret import Secret
from common.vault.documents import Chunking, Immutability
from common.vault.hosts import points_of, unwrap_host
from common.vault.location import VaultLocation
from common.vault.stores import DirectoryStore, MemoryStore
from common.vault.vaults import open_vault
from worker.backup import BackupDeps, BackupRequest, run_backup
from worker.pinned import PinnedVault, load_pinned, vault_folder
from worker.platform import this_host
from worker.platform.api import SourceRoot
from worker.platform.fake import FakeHost
from worker.recovery import OpenedHost
from worker.restore import RestoreDeps, RestoreRequest, run_restore
from worker.standalone import Chain, find_pinned, initialise, plan_backup, receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.vault.keys import HostKeys
    from common.vault.points import StoredPoint
    from common.vault.store import Store

PASSPHRASE = Secret("correct horse battery")
SMALL = Chunking(min_size=256, average_size=512, max_size=1024, normalization=1, bundle_limit=2048, segment_size=8192)
"""A vault in miniature: every boundary is within reach of a small file."""


def now() -> datetime:
    return datetime.now(UTC)


def nothing(*_ignored: object) -> None:
    """What a callback does that nobody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """`store` is the vault as it is; calls take another one (faulty, say) that stands before it."""

    store: Store = field(repr=False)
    location: VaultLocation
    state: Path
    source: Path
    keys: HostKeys = field(repr=False)

    @classmethod
    def make(
        cls, folder: Path, store: Store | None = None, *, chunking: Chunking = SMALL, domain_policy: str = "vault"
    ) -> Rig:
        """A vault with one host and no point. The folder `source` is there and empty."""
        store = store or MemoryStore(now)
        location = VaultLocation(scheme="file", path=folder / "vault")
        pinned, _ = initialise(
            store,
            location,
            state=folder / "state",
            host_name="rig",
            passphrase=PASSPHRASE,
            domain_policy=domain_policy,
            immutability=Immutability.DISABLED,
            clock=now,
            chunking=chunking,
        )
        source = folder / "source"
        source.mkdir()
        keys = unwrap_host(store, PASSPHRASE, vault_id=pinned.vault_id, host=pinned.host_id)
        return cls(store=store, location=location, state=folder / "state", source=source, keys=keys)

    def copy(self, folder: Path, *, source: Path | None = None) -> Rig:
        """The same vault and host, apart from this one; the source folder is shared unless one is given."""
        store: Store
        if isinstance(self.store, MemoryStore):
            store = MemoryStore(now)
            store._objects.update({key: list(versions) for key, versions in self.store._objects.items()})
            store._count = self.store._count
        else:
            shutil.copytree(self.vault_folder, folder / "vault")
            store = DirectoryStore(folder / "vault")
        shutil.copytree(self.state, folder / "state")
        return replace(self, store=store, state=folder / "state", source=source or self.source)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # as hypothesis calls it
        printer.text("<rig>")

    @property
    def pinned(self) -> PinnedVault:
        return load_pinned(self.state, self.keys.vault_id)

    @property
    def vault_folder(self) -> Path:
        """Of a vault in a folder."""
        assert isinstance(self.store, DirectoryStore)
        return self.store._root

    @property
    def folder(self) -> Path:
        """Journal and caches of this vault."""
        return vault_folder(self.state, self.keys.vault_id)

    def host(self) -> FakeHost:
        inner = this_host()
        return FakeHost(inner=inner, files=inner.files, roots=(SourceRoot(real=os.fsencode(self.source), tree=b""),))

    def plan(self, store: Store | None = None, *, reread: bool = False) -> tuple[BackupRequest, Chain]:
        at = store or self.store
        pinned, vault = find_pinned(self.state, self.location, at)
        return plan_backup(at, pinned, vault, spec=BackupSpec(reread=reread), state=self.state)

    def run(
        self,
        request: BackupRequest,
        store: Store | None = None,
        host: FakeHost | None = None,
        before_commit: Callable[[], None] = nothing,
    ) -> JobReport:
        deps = BackupDeps(
            store=store or self.store,
            host=host or self.host(),
            pinned=self.pinned,
            state=self.state,
            clock=now,
            monotonic=time.monotonic,
            random_bytes=secrets.token_bytes,
            progress=nothing,
            cancelled=nothing,
            before_commit=before_commit,
        )
        return run_backup(request, deps)

    def backup(
        self, store: Store | None = None, *, reread: bool = False, host: FakeHost | None = None
    ) -> tuple[JobReport, StoredPoint]:
        """A whole standalone run: find, plan, back up, judge, and say `received`."""
        at = store or self.store
        request, chain = self.plan(at, reread=reread)
        report = self.run(request, at, host)
        return report, receive(at, self.pinned, request, chain, now)

    def opened(self, store: Store | None = None) -> OpenedHost:
        """What a recovery sees, without stretching the passphrase again."""
        at = store or self.store
        vault = open_vault(at)
        public = self.keys.signing_key.public_key()
        found = points_of(at, vault_id=vault.id, host=self.keys.host_id, public=public, signer=vault.signer)
        return OpenedHost(vault=vault, keys=self.keys, name="rig", points=tuple(found))

    def restore(
        self,
        to: Path,
        store: Store | None = None,
        *,
        point: str = "latest",
        includes: tuple[str, ...] = (),
    ) -> JobReport:
        at = store or self.store
        opened = self.opened(at)
        chosen = opened.choose(point)
        request = RestoreRequest(
            vault_id=opened.vault.id,
            root=opened.root_of(chosen),
            destination=to,
            includes=includes,
            expected_bytes=chosen.head.logical_bytes,
        )
        deps = RestoreDeps(store=at, host=this_host(), monotonic=time.monotonic, progress=nothing, cancelled=nothing)
        return run_restore(request, deps)

    def assert_restores(self, to: Path, store: Store | None = None, *, point: str = "latest") -> None:
        """The newest point (or the one named) gives back the source as it is now, all of it."""
        report = self.restore(to, store, point=point)
        assert report.failed == ()
        assert_same(self.source, to)


def described(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that a restore must give back, by path: kind, mode, size, time, owner, names of one file, attributes, bytes."""
    found: dict[bytes, tuple[object, ...]] = {}
    names_of: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        for name in sorted(folders + files):
            real = folder + b"/" + name
            path = os.path.relpath(real, base)
            found[path] = (os.lstat(real), real)
    return {path: _described(path, *at, names_of) for path, at in sorted(found.items())}  # type: ignore[arg-type]


def _described(
    path: bytes, status: os.stat_result, real: bytes, names_of: dict[tuple[int, int], bytes]
) -> tuple[object, ...]:
    content: object = None
    size = 0
    first = b""
    if stat.S_ISREG(status.st_mode):
        with open(real, "rb") as file:  # noqa: PTH123  # a path of bytes
            content = hashlib.file_digest(file, "sha256").hexdigest()
        size = status.st_size
        first = names_of.setdefault((status.st_dev, status.st_ino), path)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(real)  # noqa: PTH115  # a path of bytes
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        content = status.st_rdev
    attributes: tuple[object, ...] = ()
    if not stat.S_ISLNK(status.st_mode):
        attributes = tuple((name, os.getxattr(real, name)) for name in sorted(os.listxattr(real)))
    return (status.st_mode, size, status.st_mtime_ns, status.st_uid, status.st_gid, first, attributes, content)


def assert_same(source: Path, restored: Path) -> None:
    wanted, got = described(source), described(restored)
    assert list(got) == list(wanted)
    differing = {path: (wanted[path], got[path]) for path in wanted if wanted[path] != got[path]}
    assert differing == {}

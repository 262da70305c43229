# ruff: noqa: E402, PTH101
"""Giving a restored file its owner, mode, extended attributes and times, and saying what was not permitted.

Order: owner (which clears set-user-id bits and capabilities), attributes (which a read-only mode would forbid), mode,
times. Set-user-id bits are given only to files whose owner was restored: else they would run as somebody else.
"""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from common.vault.entry import Kind

if TYPE_CHECKING:
    from common.vault.entry import Entry, Time

OWNER_NOTE = "the owner was not restored: only root may give files away"
MODE_NOTE = "the mode was not restored whole: set-user-id and set-group-id need the owner"
TIME_NOTE = "the file system cannot hold the time"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NOT_HERE = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_SET_ID = stat.S_ISUID | stat.S_ISGID
_NS = 1_000_000_000
_SAFE_SECONDS = range(1 << 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something just made: open (`fd`), or by its name in an open directory, where it is never followed."""

    fd: int = -1
    directory_fd: int = -1
    name: bytes = b""

    @property
    def by_path(self) -> str | bytes:
        """A path for calls that take no directory: it leads through the open directory, not through names."""
        return b"/proc/self/fd/%d/%b" % (self.directory_fd, self.name)

    def stat(self) -> os.stat_result:
        if self.fd >= 0:
            return os.fstat(self.fd)
        return os.stat(self.name, dir_fd=self.directory_fd, follow_symlinks=False)


def apply(place: Place, entry: Entry, *, numeric_owner: bool) -> list[str]:
    """Returns one note for each thing this user or file system does not permit. Raises OSError for anything else."""
    notes: list[str] = []
    owned = _own(place, *wanted_owner(entry, numeric=numeric_owner))
    if not owned:
        notes.append(OWNER_NOTE)
    notes += _set_xattrs(place, entry)
    if entry.kind != Kind.SYMLINK:
        mode = entry.mode if owned else entry.mode & ~_SET_ID
        _chmod(place, mode)
        if mode != entry.mode:
            notes.append(MODE_NOTE)
    notes += _set_times(place, entry.mtime)
    return notes


def wanted_owner(entry: Entry, *, numeric: bool) -> tuple[int, int]:
    if numeric:
        return entry.uid, entry.gid
    return _uid(entry.owner, entry.uid), _gid(entry.group, entry.gid)


@lru_cache(maxsize=4096)
def _uid(name: str, otherwise: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else otherwise
    except KeyError:
        return otherwise


@lru_cache(maxsize=4096)
def _gid(name: str, otherwise: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else otherwise
    except KeyError:
        return otherwise


def _own(place: Place, uid: int, gid: int) -> bool:
    """Whether the owner and group are now those."""
    now = place.stat()
    if (now.st_uid, now.st_gid) == (uid, gid):
        return True
    wishes = [(uid, gid)] if os.geteuid() == 0 else [(uid, gid), (-1, gid)]
    for user, group in wishes:
        try:
            if place.fd >= 0:
                os.chown(place.fd, user, group)
            else:
                os.chown(place.name, user, group, dir_fd=place.directory_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
        else:
            return user == uid
    return False


def _set_xattrs(place: Place, entry: Entry) -> list[str]:
    follow = place.fd >= 0
    file = place.fd if follow else place.by_path
    notes = []
    if place.fd >= 0 and entry.kind in (Kind.FILE, Kind.DIRECTORY):
        _drop_inherited_acls(place.fd, {name for name, _ in entry.xattrs})
    for name, value in entry.xattrs:
        try:
            os.setxattr(file, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            space = name.split(b".", 1)[0].decode("ascii", "replace")
            notes.append(f"extended attributes of {space}.* were not restored: not permitted or not supported here")
    return notes


def _drop_inherited_acls(fd: int, wanted: set[bytes]) -> None:
    """A folder's default ACL gives new files access lists that the source did not have."""
    try:
        there = os.listxattr(fd)
    except OSError:
        return
    for name in there:
        if name in _ACLS and os.fsencode(name) not in wanted:
            os.removexattr(fd, name)


def _chmod(place: Place, mode: int) -> None:
    if place.fd >= 0:
        os.chmod(place.fd, mode)
        return
    # There is no chmod that leaves links alone; an open handle to the node itself is one.
    fd = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _set_times(place: Place, mtime: Time) -> list[str]:
    ns = mtime[0] * _NS + mtime[1]
    try:
        if place.fd >= 0:
            os.utime(place.fd, ns=(ns, ns))
        else:
            os.utime(place.name, ns=(ns, ns), dir_fd=place.directory_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return [TIME_NOTE]
    except OverflowError:
        return [TIME_NOTE]
    if mtime[0] in _SAFE_SECONDS:
        return []
    return [] if place.stat().st_mtime_ns // _NS == mtime[0] else [TIME_NOTE]

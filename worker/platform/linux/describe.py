# ruff: noqa: E402, PTH115
"""What a file is: `lstat`, links, extended attributes and owners as an `Entry`."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import errno
import grp
import os
import pwd
import stat
from functools import lru_cache
from typing import TYPE_CHECKING

from common.vault.entry import Entry, Kind, Time
from worker.platform.reasons import in_words

if TYPE_CHECKING:
    from worker.platform.api import Warn

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}
_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)
_NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NS = 1_000_000_000


@lru_cache(maxsize=4096)
def owner_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return ""


@lru_cache(maxsize=4096)
def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return ""


def time_of(ns: int) -> Time:
    """(seconds, nanoseconds) with nanoseconds never negative, as the tree keeps them."""
    return divmod(ns, _NS)


def xattrs_of(file: bytes | int, tree: bytes, warn: Warn) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes of a path (not followed) or an open file, sorted by name; none where there are none."""
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            warn(tree, f"its extended attributes could not be read: {in_words(error)}")
        return ()
    found = []
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno != errno.ENODATA:
                warn(tree, f"its extended attribute {name} could not be read: {in_words(error)}")
    return tuple(sorted(found))


def entry_of(status: os.stat_result, tree: bytes, *, target: bytes, xattrs: tuple[tuple[bytes, bytes], ...]) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise OSError(errno.EINVAL, "a kind of file that is not known")
    return Entry(
        path=tree,
        kind=kind,
        size=status.st_size if kind is Kind.FILE else 0,
        mtime=time_of(status.st_mtime_ns),
        ctime=time_of(status.st_ctime_ns),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        owner=owner_name(status.st_uid),
        group=group_name(status.st_gid),
        device=status.st_dev,
        inode=status.st_ino,
        links=status.st_nlink,
        target=target,
        node=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in _DEVICES else (0, 0),
        xattrs=xattrs,
    )


def describe(real: bytes, tree: bytes, warn: Warn) -> Entry:
    status = os.lstat(real)
    target = os.readlink(real) if stat.S_ISLNK(status.st_mode) else b""
    return entry_of(status, tree, target=target, xattrs=xattrs_of(real, tree, warn))

"""Operating system errors in words, the same on every system."""

from __future__ import annotations

import errno

VANISHED = "vanished"
CHANGED = "changed while it was read"
DENIED = "permission denied"

_WORDS = {
    errno.ENOENT: VANISHED,
    errno.ESTALE: VANISHED,
    errno.EACCES: DENIED,
    errno.EPERM: "not permitted",
    errno.EIO: "input/output error",
    errno.ELOOP: "a symbolic link is in the way",
    errno.ENOTDIR: "a file or a link is in the way of its folder",
    errno.EISDIR: "a folder is in the way",
    errno.EEXIST: "something with this name is there already",
    errno.ENOTEMPTY: "a folder that is not empty is in the way",
    errno.ENAMETOOLONG: "the path is too long for this system",
    errno.ENOSPC: "no space left on the volume",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the volume is read-only",
    errno.EFBIG: "the file is too large for this file system",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files on this machine",
    errno.EINVAL: "the file system refuses this name or value",
    errno.EILSEQ: "the file system refuses this name",
    errno.EBUSY: "in use",
    errno.ETXTBSY: "in use",
    errno.ENXIO: "nobody serves it",
    errno.ETIMEDOUT: "the volume does not answer",
}


def in_words(error: OSError) -> str:
    """The reason of an error as a few words without the path."""
    if error.errno in _WORDS:
        return _WORDS[error.errno]
    return (error.strerror or str(error) or type(error).__name__).lower()

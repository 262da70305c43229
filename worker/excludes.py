"""Globs that leave files out.

Matched against the path in the tree with a slash before it, so `/var/cache` is absolute. A glob without a leading slash
matches at any depth. `*` and `?` stay within a name, `**` crosses folders, `[…]` is a set. What matches is left out
with all that is below it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Excludes:
    def __init__(self, globs: Iterable[str], *, ignore_case: bool = False) -> None:
        parts = [_regex(glob) for glob in globs if glob.strip("/")]
        flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
        self._pattern = re.compile(b"|".join(parts), flags) if parts else None

    def match(self, tree_path: bytes) -> bool:
        """Whether this path itself is named; the caller prunes what is below."""
        return self._pattern is not None and self._pattern.fullmatch(b"/" + tree_path) is not None


def _regex(glob: str) -> bytes:
    text = glob.encode("utf-8", "surrogateescape").rstrip(b"/")
    start = b"" if text.startswith(b"/") else b"(?:.*)/"
    return b"(?:" + start + b"".join(_pieces(text)) + b")"


_PIECE = re.compile(
    rb"(?P<any>/\*\*/)|(?P<deep>\*\*)|(?P<star>\*)|(?P<one>\?)|(?P<set>\[[!^]?\]?[^\]]*\])|(?P<plain>.)", re.DOTALL
)


def _pieces(text: bytes) -> Iterable[bytes]:
    for match in _PIECE.finditer(text):
        piece = match[0]
        if match["any"]:
            yield b"/(?:.*/)?"
        elif match["deep"]:
            yield b".*"
        elif match["star"]:
            yield b"[^/]*"
        elif match["one"]:
            yield b"[^/]"
        elif match["set"]:
            yield _set(piece)
        else:
            yield re.escape(piece)


def _set(piece: bytes) -> bytes:
    inner = piece[1:-1]
    negated = inner[:1] in (b"!", b"^")
    body = (inner[1:] if negated else inner).replace(b"\\", b"\\\\").replace(b"[", b"\\[").replace(b"]", b"\\]")
    body = body.replace(b"^", b"\\^").replace(b"&", b"\\&").replace(b"~", b"\\~").replace(b"|", b"\\|")
    try:
        re.compile(b"[" + body + b"]")
    except re.error:
        return re.escape(piece)  # such as [z-a]: taken as it stands
    return b"(?!/)[" + (b"^" if negated else b"") + body + b"]"

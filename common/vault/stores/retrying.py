"""Retries around a store: exponential back-off with jitter, only for what `is_retryable` says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from common.errors import AlreadyExists, NoSpace, StatewardError, is_retryable
from common.vault.store import Buffer, ObjectInfo, ObjectVersion, Store

R = TypeVar("R")


class RetryingStore:
    """Calls `inner` again until `patience_s` seconds of waiting are used up; then the last error is raised.

    Until the store has answered once the patience is `patience_at_first_s`, if given: the address may be wrong, and
    somebody waits to be told. `sleep` may raise (Cancelled) to end waiting early. A PUT whose answer was lost finds its
    own object at the next try: it counts as stored when the content is equal.
    """

    def __init__(
        self,
        inner: Store,
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        patience_s: float = 120.0,
        patience_at_first_s: float | None = None,
        first_wait_s: float = 0.2,
        longest_wait_s: float = 10.0,
    ) -> None:
        self._inner = inner
        self._sleep = sleep
        self._random = random
        self._patience_s = patience_s
        self._patience_now_s = patience_s if patience_at_first_s is None else patience_at_first_s
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            try:
                self._inner.put(key, data, sha256=sha256)
            except AlreadyExists:
                if tries == 1 or not self._holds(key, data, sha256):
                    raise

        self._retry(attempt)

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        return self._retry(lambda: self._inner.get(key, offset=offset, length=length, version=version))

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo:
        return self._retry(lambda: self._inner.head(key, version=version))

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        yield from self._retry(lambda: list(self._inner.list(prefix, hidden=hidden)))

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        return self._retry(lambda: self._inner.versions(key))

    def delete(self, key: str, *, version: str) -> None:
        self._retry(lambda: self._inner.delete(key, version=version))

    def _holds(self, key: str, data: Buffer, sha256: bytes | None) -> bool:
        digest = sha256 or hashlib.sha256(data).digest()
        stored = self._inner.head(key).sha256
        return digest == (stored or hashlib.sha256(self._inner.get(key)).digest())

    def _retry(self, call: Callable[[], R]) -> R:
        waited = 0.0
        wait = self._first_wait_s
        while True:
            try:
                result = call()
            except StatewardError as error:
                if not is_retryable(error) or isinstance(error, NoSpace):
                    self._patience_now_s = self._patience_s
                    raise
                if waited >= self._patience_now_s:
                    raise
            else:
                self._patience_now_s = self._patience_s
                return result
            pause = wait * (0.5 + self._random())
            self._sleep(pause)
            waited += pause
            wait = min(wait * 2, self._longest_wait_s)

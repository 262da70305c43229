"""Faults for stores, and a checker of vaults that trusts nothing of the engine but its key unwrapping.

`check_vault` lists the bucket and reads it with the layouts of the format's description: V1 (a key is written once), V2
(accepted points are complete), V3 (packs are named by their SHA-256), V4 and V7 (nothing is readable; every block opens
only with the keys that the passphrase leads to), V5 (nothing lies under another host's prefix, only the kinds that are
signed are signed by their signer).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ulid import ULID

from common.errors import StoreUnavailable
from common.vault.hosts import unwrap_host
from common.vault.hpke import open_sealed
from common.vault.stores import MemoryStore

if TYPE_CHECKING:
    from common.secret import Secret
    from common.vault.keys import HostKeys
    from common.vault.store import Buffer, ObjectInfo, ObjectVersion, Store

R = TypeVar("R")


class When(StrEnum):
    BEFORE = "before"
    """The call fails and does nothing."""
    AFTER = "after"
    """The call takes effect and its answer is lost."""


@dataclass(slots=True)
class FaultyStore:
    """`inner`, of which call number `nth` fails; with `for_good` every later one, too. May be called by many threads."""

    inner: Store
    nth: int
    when: When = When.BEFORE
    for_good: bool = False
    only: str = ""
    """Count calls of this method alone; all when empty."""
    calls: int = 0
    fired: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        self._call("put", key, lambda: self.inner.put(key, data, sha256=sha256))

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        return self._call("get", key, lambda: self.inner.get(key, offset=offset, length=length, version=version))

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo:
        return self._call("head", key, lambda: self.inner.head(key, version=version))

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        yield from self._call("list", prefix, lambda: list(self.inner.list(prefix, hidden=hidden)))

    def versions(self, key: str) -> list[ObjectVersion]:
        return self._call("versions", key, lambda: self.inner.versions(key))

    def delete(self, key: str, *, version: str) -> None:
        self._call("delete", key, lambda: self.inner.delete(key, version=version))

    def _call(self, method: str, key: str, call: Callable[[], R]) -> R:
        with self._lock:
            self.calls += not self.only or self.only == method
            fails = (not self.only or self.only == method) and (
                self.calls == self.nth or (self.for_good and self.calls > self.nth)
            )
            self.fired += fails
        if fails and self.when is When.AFTER:
            call()
        if fails:
            raise StoreUnavailable(f"The scripted store failed {self.when} {method} of {key}.")
        return call()


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker saw."""

    points: tuple[str, ...]
    """Ids of points that hold, by `seq`."""
    packs: int
    """Of the whole vault, needed or not."""


def check_vault(store: Store, passphrase: Secret[str] | HostKeys, *, plain: Collection[bytes] = ()) -> Checked:
    """Assert the invariants of a vault of one host. `plain` may occur nowhere in the bucket's bytes or keys."""
    objects = {info.key: store.get(info.key) for info in store.list("")}
    vault = json.loads(objects["vault.json"])
    hosts = {key.split("/")[1] for key in objects if key.startswith("keys/")}
    assert len(hosts) == 1
    (host,) = hosts
    keys = (
        passphrase
        if hasattr(passphrase, "recovery_seed")
        else unwrap_host(store, passphrase, vault_id=vault["vault"], host=host)
    )
    checker = _Checker(objects, vault["vault"], host, keys)
    _written_once(store, objects)
    for key, data in objects.items():
        for word in plain:
            assert word not in data, f"plain text in {key}"
            assert word not in key.encode()
    checker.kinds()
    signer = checker.config_chain(base64.b64decode(vault["signer"]))
    return Checked(tuple(checker.points(signer)), sum(key.startswith("packs/") for key in objects))


def _written_once(store: Store, objects: dict[str, bytes]) -> None:
    """V1, and V3 where the store shows a checksum."""
    for key, data in objects.items():
        assert len(store.versions(key)) == 1, f"{key} was written twice"
        if isinstance(store, MemoryStore):
            assert store.head(key).sha256 == hashlib.sha256(data).digest()


@dataclass(slots=True)
class _Checker:
    objects: dict[str, bytes]
    vault: str
    host: str
    keys: HostKeys

    def kinds(self) -> None:
        """Every object is of a known kind, under this host, named by its bytes or signed."""
        signing = self.keys.signing_key.public_key()
        for key, data in self.objects.items():
            kind, *rest = key.split("/")
            if kind in {"packs", "lists", "index", "points", "leases", "hosts", "keys", "state"}:
                assert rest[0] == self.host, f"{key} is not of this host"
            if kind == "packs":
                assert hashlib.sha256(data).hexdigest() == rest[1]
                assert data[:6] == b"SWPK\x01\x00"
            elif kind == "lists":
                assert hashlib.sha256(data).hexdigest() == rest[1]
                assert data[32:38] == b"SWLP\x01\x00"
            elif kind == "index":
                assert data[:6] == b"SWIX\x01\x00"
            elif kind in {"leases", "hosts"}:
                self.signed({"leases": "lease", "hosts": "host"}[kind], key, signing)
            else:
                assert kind in {"points", "keys", "state", "config", "vault.json"}, f"{key} has no place in a vault"

    def config_chain(self, signer: bytes) -> Ed25519PublicKey:
        """The first config names `vault.json`, each further one the config before it."""
        before = first = hashlib.sha256(self.objects["vault.json"]).digest()
        for key in sorted(key for key in self.objects if key.startswith("config/")):
            body = self.signed("config", key, Ed25519PublicKey.from_public_bytes(signer))
            assert key == f"config/{body['seq']:010d}"
            assert body["prev_sha256"] == before
            before, signer = hashlib.sha256(self.objects[key]).digest(), body["signer"]
        assert before != first
        return Ed25519PublicKey.from_public_bytes(signer)

    def signed(self, kind: str, key: str, public: Ed25519PublicKey) -> dict[str, Any]:
        data = self.objects[key]
        (length,) = struct.unpack_from("<I", data)
        body, signature = data[4 : 4 + length], data[4 + length :]
        message = b"stateward " + kind.encode() + b" v1\0" + uuid.UUID(self.vault).bytes
        public.verify(signature, message + struct.pack("<I", len(key)) + key.encode() + body)
        return msgspec.msgpack.decode(body)  # type: ignore[no-any-return]

    def points(self, signer: Ed25519PublicKey) -> Iterator[str]:
        """V2 for each point; the chain of `seq` and `prev` has no gap and no fork."""
        found = []
        for key, data in self.objects.items():
            if key.startswith("points/"):
                found.append((self.complete_point(key, data), key, hashlib.sha256(data).digest()))
        found.sort(key=lambda each: each[0]["seq"])
        before: bytes = b""
        for number, (head, key, sha256) in enumerate(found, start=1):
            assert (head["seq"], head.get("prev_sha256", b"")) == (number, before), f"{key} does not follow"
            before = sha256
            states = [at for at in self.objects if at.startswith(f"state/{self.host}/{head['point']}/")]
            for at in states:
                assert self.signed("state", at, signer)["point_sha256"] == sha256
            yield head["point"]
        named = {each[0]["point"] for each in found}
        assert {key.split("/")[2] for key in self.objects if key.startswith("state/")} <= named

    def complete_point(self, key: str, data: bytes) -> dict[str, Any]:
        (length,) = struct.unpack_from("<I", data)
        assert length <= 4096
        head_bytes, signature, root = data[4 : 4 + length], data[4 + length : 68 + length], data[68 + length :]
        public = self.keys.signing_key.public_key()
        public.verify(signature, b"stateward point v1\0" + head_bytes + hashlib.sha256(root).digest())
        head: dict[str, Any] = msgspec.msgpack.decode(head_bytes)
        assert key == f"points/{self.host}/{head['point']}"
        assert (head["v"], head["vault"], head["host"]) == (1, self.vault, self.host)
        packs = self.packs_of(head)
        for name, size in packs.items():
            assert len(self.objects[f"packs/{self.host}/{name}"]) == size, f"{key}: {name} is not whole"
        indexed = self.blocks_of_indexes(head)
        needed = self.blocks_of_tree(key, root)
        assert {pack for _, pack, _, _ in needed} == set(packs), f"{key} does not name exactly the packs it needs"
        assert needed <= indexed, f"{key} needs blocks that its indexes do not list"
        return head

    def packs_of(self, head: dict[str, Any]) -> dict[str, int]:
        pages = [sha.hex() for sha in head["lists"]]
        if head.get("lists_root"):
            (root,) = pages
            pages = [sha.hex() for _, sha, _ in self.page(root, 1, "<16s32sQ")]
        return {sha.hex(): size for page in pages for _, sha, size in self.page(page, 0, "<16s32sQ")}

    def page(self, name: str, kind: int, row: str) -> list[tuple[Any, ...]]:
        data = self.objects[f"lists/{self.host}/{name}"]
        found_kind, count = struct.unpack_from("<BI", data, 38)
        rows = list(struct.iter_unpack(row, data[43:]))
        assert (found_kind, count) == (kind, len(rows))
        assert all(uuid.UUID(bytes=each[0]) == uuid.UUID(self.host) for each in rows)
        return rows

    def blocks_of_indexes(self, head: dict[str, Any]) -> set[tuple[bytes, str, int, int]]:
        """(block id, pack, offset, length) of all index objects that a head names."""
        named = head["indexes"]
        if head.get("indexes_root"):
            assert not named
            named = self.page(head["indexes_root"].hex(), 2, "<16s16s32s")
        blocks = set()
        for _, ulid, sha256 in named:
            key = f"index/{self.host}/{ULID.from_bytes(ulid)}"
            data = self.objects[key]
            assert hashlib.sha256(data).digest() == sha256
            random, domain = data[6:38], str(uuid.UUID(bytes=data[38:54]))
            secret = {**self.keys.domains, self.host: self.keys.host_secret}[domain].reveal()
            material = uuid.UUID(self.vault).bytes + uuid.UUID(domain).bytes + secret
            index_key = blake3(material, derive_key_context="stateward v1 index").digest()
            plain = AESGCM(blake3(random + key.encode(), key=index_key).digest()).decrypt(
                bytes(12), data[54:], key.encode()
            )
            (length,) = struct.unpack_from("<I", plain)
            packs = msgspec.msgpack.decode(plain[4 : 4 + length])["packs"]
            rows = list(struct.iter_unpack("<32sIII", plain[4 + length :]))
            assert rows == sorted(rows)
            blocks |= {(block, packs[pack][0].hex(), offset, size) for block, pack, offset, size in rows}
        return blocks

    def blocks_of_tree(self, key: str, root: bytes) -> set[tuple[bytes, str, int, int]]:
        """(block id, pack, offset, length) of all blocks, each opened, that the tree of a point needs."""
        parts = (b"stateward root v1", b"\x01\x00", uuid.UUID(self.vault).bytes, key.encode())
        info = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        rows = msgspec.msgpack.decode(open_sealed(self.keys.recovery_seed, root, info=info))["blocks"]
        needed = set()
        for host, pack, offset, length, plain_size, block, block_key, _ in rows:
            needed.add((block, pack.hex(), offset, length))
            plain = self.opened(host, pack, offset, length, plain_size, block, block_key)
            for place in _table(plain):
                needed.add((place[5], place[1].hex(), place[2], place[3]))
                inner = self.opened(*place)
                if inner[:4] == b"SWTB":
                    for further in _table(inner):
                        needed.add((further[5], further[1].hex(), further[2], further[3]))
                        self.opened(*further)
        return needed

    def opened(
        self, host: bytes, pack: bytes, offset: int, length: int, plain_size: int, block: bytes, key: bytes
    ) -> bytes:
        assert uuid.UUID(bytes=host) == uuid.UUID(self.host)
        sealed = self.objects[f"packs/{self.host}/{pack.hex()}"][offset : offset + length]
        assert blake3(sealed).digest() == block
        message = AESGCM(key).decrypt(bytes(12), sealed, b"stateward block v1" + uuid.UUID(self.vault).bytes)
        plain = zstandard.decompress(message[1:]) if message[:1] == b"\x01" else message[1:]
        assert len(plain) == plain_size
        return plain


def _table(plain: bytes) -> Iterator[tuple[bytes, bytes, int, int, int, bytes, bytes]]:
    """The table of a tree or range block: host, pack, offset, length, plain size, id, key."""
    magic, version, packs, blocks = struct.unpack_from("<4sHII", plain)
    assert (magic, version) == (b"SWTB", 1)
    end = 14 + packs * 48
    names = list(struct.iter_unpack("<16s32s", plain[14:end]))
    for pack, offset, length, size, block, key in struct.iter_unpack("<IIII32s32s", plain[end : end + blocks * 80]):
        yield (*names[pack], offset, length, size, block, key)

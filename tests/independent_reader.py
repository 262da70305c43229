"""Restores the latest point of a vault, written from `docs/vault-format.md` alone: nothing of ours is imported.

    python tests/independent_reader.py file:///path/of/vault PASSPHRASE-FILE NEW-FOLDER

It restores files, folders and symbolic links with modes and times, checks all that can be checked, and stops at the first
thing that does not hold: it is a proof that the document is complete, not a tool for bad days.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import os
import re
import struct
import sys
import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgpack
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

NONCE0 = bytes(12)
MAX_PLAIN, MAX_PACK, MAX_OBJECT = 4 * 1024 * 1024, 23 * 1024 * 1024, 64 * 1024 * 1024
MAY_FOLLOW = {"received": ["", "quarantined"], "quarantined": ["", "received"], "undeleted": ["deleted"]}
MAY_FOLLOW |= {"deleted": ["", "received", "quarantined"], "purged": ["", "received", "quarantined", "deleted"]}


def check(holds, what):
    if not holds:
        raise ValueError(what)


def document(raw: bytes):
    found = msgpack.unpackb(raw)
    check(isinstance(found, dict) and found.get("v") == 1, "a document of version 1")
    return found


def lp(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def sha256_of(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


class Vault:
    """The folder of a vault: `vault.json` and the configs hold."""

    def __init__(self, url: str) -> None:
        self.root, self.block = Path(unquote(urlsplit(url).path)), functools.lru_cache(16)(self.open_block)
        raw = self.get("vault.json")
        about, self.sha256 = json.loads(raw), sha256_of(raw)
        check(url.startswith("file://") and about["v"] == 1, "a file:// vault of version 1")
        self.id, self.text_id = uuid.UUID(about["vault"]).bytes, about["vault"]
        cut = about["chunking"]
        check(64 <= cut["min_size"] <= cut["average_size"] <= cut["max_size"] <= MAX_PLAIN, "sizes of blocks")
        check(0 <= cut["bundle_limit"] <= MAX_PLAIN and cut["max_size"] <= cut["segment_size"], "sizes of segments")
        self.signer, self.configs = base64.b64decode(about["signer"], validate=True), {0: self.sha256}
        for seq, key in enumerate(self.keys("config"), 1):
            config = self.signed("config", f"config/{seq:010d}", self.signer)
            check((config["seq"], config["prev_sha256"]) == (seq, self.configs[seq - 1]), f"{key} in the chain")
            self.signer, self.configs[seq] = config["signer"], sha256_of(self.get(key))

    def get(self, key: str, offset: int = 0, length: int = MAX_OBJECT) -> bytes:
        check(re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", key), "an object key")
        with (self.root / key).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def keys(self, prefix: str) -> list[str]:
        found = (path for path in (self.root / prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def signed(self, kind: str, key: str, public: bytes):
        raw = self.get(key)
        (length,) = struct.unpack_from("<I", raw)
        check(length <= 16 * 1024 * 1024 and len(raw) == 4 + length + 64, f"{key} has its length")
        body, signature = raw[4 : 4 + length], raw[4 + length :]
        message = b"stateward " + kind.encode() + b" v1\0" + self.id + lp(key.encode()) + body
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return document(body)

    def open_block(self, host, sha256, offset, length, plain_size, block_id, key) -> bytes:
        check([*map(len, (host, sha256, block_id, key))] == [16, 32, 32, 32], "names and a key")
        check(offset >= 38 and 0 < length <= MAX_PLAIN + 17 and 0 <= plain_size <= MAX_PLAIN, "a place in a pack")
        pack = f"packs/{uuid.UUID(bytes=host)}/{sha256.hex()}"
        sealed = self.get(pack, offset, length)
        check(self.get(pack, 0, 6) == b"SWPK\1\0" and blake3(sealed).digest() == block_id, "a block as its id says")
        message = AESGCM(key).decrypt(NONCE0, sealed, b"stateward block v1" + self.id)
        mode, plain = message[0], message[1:]
        check(mode == 0 or (mode == 1 and 0 <= zstandard.frame_content_size(plain) <= MAX_PLAIN), "a mode")
        plain = zstandard.ZstdDecompressor().decompress(plain, allow_extra_data=False) if mode else plain
        check(len(plain) == plain_size, "a block of the size of its place")
        return plain


def private_key(seed: bytes):
    expanded = hashlib.shake_256(seed).digest(96)
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(lattice, curve), public


def unwrap(vault: Vault, passphrase: bytes):
    """(host, its Ed25519 key, seeds by key id) of all wrappings that the passphrase opens; the newest is last."""
    hosts, signing, seeds = set(), b"", {}
    for name in sorted(vault.keys("keys"), key=lambda name: name.rsplit("/", 1)[1]):
        (_, host, key_id, _), wrapping = name.split("/"), document(vault.get(name))
        if wrapping["kind"] != "passphrase":
            continue
        salt, turns, memory, lanes = map(wrapping["argon2"].get, ("salt", "iterations", "memory_kib", "lanes"))
        check(1 <= turns <= 8 and 1 <= lanes <= 16 and 8 * lanes <= memory <= 2**18 and len(salt) == 16, "caps")
        stretched = Argon2id(salt=salt, length=64, iterations=turns, lanes=lanes, memory_cost=memory).derive(passphrase)
        if stretched[32:] != wrapping["check"]:
            continue
        place = (vault.id, uuid.UUID(host).bytes, wrapping["key_id"].encode(), wrapping["public_key"])
        aad = lp(b"stateward wrapping v1", *place, struct.pack("<III", turns, memory, lanes) + salt)
        held = document(AESGCM(stretched[:32]).decrypt(NONCE0, wrapping["sealed"], aad))
        check(private_key(held["recovery_seed"])[1] == wrapping["public_key"], "the seed gives the public key")
        check(sha256_of(wrapping["public_key"]).hex()[:16] == wrapping["key_id"] == key_id, "the key id")
        check(held["vault_sha256"] == vault.sha256, "vault.json is that of the time of the wrapping")
        check(not {host, vault.text_id} & {*held["domains"]}, "shared domains have ids of their own")
        signing = ed25519.Ed25519PrivateKey.from_private_bytes(held["signing"]).public_key().public_bytes_raw()
        hosts, seeds = hosts | {host}, seeds | {key_id: held["recovery_seed"]}
    check(len(hosts) == 1, "the passphrase opens one host")
    return hosts.pop(), signing, seeds


def check_host(vault: Vault, host: str, trusted: bytes) -> None:
    """The chain of records holds, and the trusted key is in it."""
    newest, before, seen = {}, b"", set()
    for name in vault.keys(f"hosts/{host}"):
        raw = vault.get(name)
        newest = vault.signed("host", name, (newest or document(raw[4:-64]))["signing_public"])
        check(newest["host"] == host and newest["prev_sha256"] == before, f"{name} follows the record before it")
        check(newest["key_id"] == sha256_of(newest["recovery_public"]).hex()[:16], f"{name} names its key")
        before, seen = sha256_of(raw), seen | {newest["signing_public"]}
    check(trusted in seen, "the chain of the host's records holds the key that the passphrase gave")
    for name, sha256 in newest["wrappings"].items():
        check(sha256_of(vault.get(name)) == sha256, f"{name} is what the record names")


def latest_point(vault: Vault, host: str, signing: bytes):
    """(head, sealed root, SHA-256, object key) of the point with the highest seq of those that count."""
    points, public = [], ed25519.Ed25519PublicKey.from_public_bytes(signing)
    for name in vault.keys(f"points/{host}"):
        raw = vault.get(name)
        (length,) = struct.unpack_from("<I", raw)
        check(length <= 4096 and len(raw) > 4 + length + 64, f"{name} has its length")
        signed, signature, root = raw[4 : 4 + length], raw[4 + length : 68 + length], raw[68 + length :]
        public.verify(signature, b"stateward point v1\0" + signed + sha256_of(root))
        head, verdict = document(signed), ""
        check((head["vault"], f"points/{head['host']}/{head['point']}") == (vault.text_id, name), f"{name} is in place")
        check(head["suite"] == "xwing-hkdfsha256-aes256gcm", "a known suite")
        check(vault.configs.get(head["config_seq"]) == head["config_sha256"], "the config that the host has seen")
        for state in vault.keys(f"state/{host}/{head['point']}"):
            said = vault.signed("state", state, vault.signer)
            if said["point_sha256"] == sha256_of(raw) and verdict in MAY_FOLLOW.get(said["decision"], []):
                verdict = {"undeleted": "received"}.get(said["decision"], said["decision"])
        if verdict not in {"quarantined", "deleted", "purged"}:
            points.append((head, root, sha256_of(raw), name))
    points.sort(key=lambda point: (point[0]["seq"], point[0]["point"]))
    for (before, _, sha256, _), (after, _, _, _) in itertools.pairwise(points):
        check(after["seq"] > before["seq"] + 1 or after["prev_sha256"] == sha256, "a point follows the one before")
    return points[-1]


def page(vault: Vault, host: str, sha256: bytes, wanted: int):
    data = vault.get(f"lists/{host}/{sha256.hex()}")
    _, *front, count = struct.unpack_from("<32s4sHBI", data)
    records = list(struct.iter_unpack("<16s16s32s" if wanted == 2 else "<16s32sQ", data[43:]))
    check(sha256_of(data) == sha256 and front == [b"SWLP", 1, wanted], "a list page of the kind that is wanted")
    check(len(records) == count <= (16_384 if wanted else 1000), "a list page of its length")
    return records


def named_packs(vault: Vault, head) -> set[tuple[bytes, bytes]]:
    """Packs that the head names, each checked whole; index objects are checked by their SHA-256."""
    packs, pages = set(), [(head["host"], sha256) for sha256 in head["lists"]]
    check(len(pages) == 1 or not head["lists_root"], "one root page")
    check(not (head["indexes_root"] and head["indexes"]), "index objects, or a page of them")
    if head["lists_root"]:
        pages = [(str(uuid.UUID(bytes=host)), sha) for at in pages for host, sha, _ in page(vault, *at, wanted=1)]
    indexes = page(vault, head["host"], head["indexes_root"], 2) if head["indexes_root"] else head["indexes"]
    for host, ulid, sha256 in indexes:
        digits = (int.from_bytes(ulid, "big") >> shift & 31 for shift in range(125, -1, -5))
        text = "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[digit] for digit in digits)
        data = vault.get(f"index/{uuid.UUID(bytes=host)}/{text}")
        check(data[:6] == b"SWIX\1\0" and sha256_of(data) == sha256, "an index object")
    for at in pages:
        for host, sha256, size in page(vault, *at, wanted=0):
            data = vault.get(f"packs/{uuid.UUID(bytes=host)}/{sha256.hex()}")
            check(sha256_of(data) == sha256 and 38 < len(data) == size <= MAX_PACK, "a pack has the bytes of its name")
            packs.add((host, sha256))
    return packs


def front(plain: bytes):
    """(places, the rest) of a tree or range block."""
    *known, packs, blocks = struct.unpack_from("<4sHII", plain)
    check(known == [b"SWTB", 1], "a block of the tree")
    packs_end, blocks_end = 14 + 48 * packs, 14 + 48 * packs + 80 * blocks
    owners = list(struct.iter_unpack("<16s32s", plain[14:packs_end]))
    rows = struct.iter_unpack("<IIII32s32s", plain[packs_end:blocks_end])
    return [(*owners[row[0]], *row[1:]) for row in rows], plain[blocks_end:]


def entries(vault: Vault, root):
    """Each entry with its content as (place, offset, length)."""
    last = b""
    for row in root:
        places, rest = front(vault.block(*row[:7]))
        check(rest or (len(root) == 1 and row[7] == b""), "a tree block with an entry, or the one of an empty tree")
        at, first = 0, row[7]
        while at < len(rest):
            (length,) = struct.unpack_from("<I", rest, at)
            entry = msgpack.unpackb(rest[at + 4 : at + 4 + length])
            at += 4 + length
            order = entry[0].replace(b"/", b"\0")
            check(order > last and first in {None, entry[0]}, "paths in order, the first as the root says")
            last, first = order, None
            content = [(places, *each) for each in zip(*[iter(entry[20])] * 3, strict=True)]
            for number in entry[21]:
                table, ranges = front(vault.block(*places[number]))
                content += [(table, *each) for each in struct.iter_unpack("<iIQ", ranges)]
            for table, number, offset, length in content:
                check(number >= -1 and min(offset, length) >= 0, "a range")
                check(offset == 0 if number == -1 else offset + length <= table[number][4], "a range in its block")
            yield entry, [(None if each[1] == -1 else each[0][each[1]], *each[2:]) for each in content]


def restore(vault: Vault, head, root, target: Path) -> int:
    """Restore files and links of the point into a new folder; returns how many it has, all but folders."""
    folders, files, packs, count = [], [], named_packs(vault, head), 0
    target.mkdir()
    check(packs and all((row[0], row[1]) in packs for row in root), "the head names the packs of the tree")
    for entry, content in entries(vault, root):
        path, kind, size = entry[:3]
        count += kind != 1
        check(path and not {b"", b".", b".."} & set(path.split(b"/")) and b"\0" not in path, "a safe path")
        full = os.path.join(os.fsencode(target), path)  # noqa: PTH118  # paths are bytes
        check(os.path.realpath(os.path.dirname(full)) == os.path.dirname(full), "no link in the way")  # noqa: PTH120
        if kind == 1:
            os.mkdir(full)  # noqa: PTH102
            folders.insert(0, (full, entry))
        elif kind == 2:
            os.symlink(entry[13], full)  # noqa: PTH211
        elif kind == 0:
            check(all(place is None or place[:2] in packs for place, _, _ in content), "named packs")
            write(vault, full, content, size, entry[19])
            files.append((full, entry))
    for full, entry in files + folders:
        os.chmod(full, entry[5])  # noqa: PTH101
        os.utime(full, ns=(entry[3][0] * 10**9 + entry[3][1],) * 2)
    check(count == head["files"], "as many files as the head says")
    return count


def write(vault: Vault, full: bytes, content, size: int, digest: bytes) -> None:
    check(sum(length for _, _, length in content) == size, "the ranges add up to the file's size")
    hasher = blake3()
    with open(full, "xb") as file:  # noqa: PTH123
        for place, offset, length in content:
            if place is None:
                for start in range(0, length, 1 << 20):
                    hasher.update(bytes(min(1 << 20, length - start)))
                file.seek(length, os.SEEK_CUR)
            else:
                data = vault.block(*place)[offset : offset + length]
                hasher.update(data)
                file.write(data)
        file.truncate(size)
    check(hasher.digest() == digest, "a file has the checksum of its entry")


def main(url: str, passphrase_file: str, target: str) -> int:
    vault = Vault(url)
    host, signing, seeds = unwrap(vault, Path(passphrase_file).read_bytes().split(b"\n", 1)[0].rstrip(b"\r"))
    check_host(vault, host, signing)
    head, sealed_root, _, name = latest_point(vault, host, signing)
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    info = lp(b"stateward root v1", struct.pack("<H", 1), vault.id, name.encode())
    root = document(suite.decrypt(sealed_root, private_key(seeds[head["key_id"]])[0], info=info))
    return restore(vault, head, root["blocks"], Path(target).resolve())


if __name__ == "__main__":
    print(main(*sys.argv[1:]), "files restored")

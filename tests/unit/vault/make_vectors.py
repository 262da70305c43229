"""Known answers of the vault format: computed from fixed inputs, kept in `vectors.json`, compared by `test_vectors.py`.

    python tests/unit/vault/make_vectors.py [--freeze]

writes the file anew (with `--freeze` also what is random when it is written: HPKE, a salt; kept in the file, such objects
are only opened here). A changed value is a changed format: then `docs/vault-format.md` needs an entry under "Changes", and
old vaults need a reader.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.ids import ulid_bytes, uuid_bytes
from common.secret import Secret
from common.vault import grant, hpke, keys, names
from common.vault.blocks import block_aad, fingerprint, open_block, seal
from common.vault.cut import Cutter
from common.vault.derive import DomainKeys
from common.vault.documents import Chunking, LeaseDocument, NamedObject
from common.vault.entry import Entry, Kind, Stream
from common.vault.index import IndexRow, read_index, write_index
from common.vault.packs import HEADER, PackBuilder, padding
from common.vault.pages import PackRef, PageKind, pages_of_packs, read_page, root_page
from common.vault.points import Head, StoredPoint, open_root, root_info
from common.vault.signed import read_signed, write_signed
from common.vault.tree import (
    Piece,
    Place,
    TreeBlockBuilder,
    read_range_block,
    read_root,
    read_tree_block,
    write_range_block,
    write_root,
)
from worker.blockcache import _lookup, _masked

VECTORS = Path(__file__).with_name("vectors.json")

VAULT = "00112233-4455-6677-8899-aabbccddeeff"
DOMAIN = "0f0e0d0c-0b0a-0908-0706-050403020100"
HOST = "11111111-2222-3333-4444-555555555555"
ULID_A = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ULID_B = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
PASSPHRASE = Secret("correct horse battery staple")
DOMAIN_SECRET = Secret(bytes(range(32)))
SEED = Secret(bytes(range(32, 64)))
DRAFT_SEED = Secret(hashlib.shake_128(b"").digest(32))
"""Of the first test vector of draft-connolly-cfrg-xwing-kem, appendix C; its public key begins e2236b35a8c24b39."""
SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
TEXT = b"stateward " * 400
LIMIT = 256
"""Longer values are kept as their SHA-256."""

Vectors = dict[str, Any]


def stream(label: str, size: int) -> bytes:
    """Bytes that anybody can make: SHAKE256 of a label."""
    return hashlib.shake_256(label.encode()).digest(size)


def counted(size: int) -> bytes:
    """Stands for chance: 0, 1, 2 …"""
    return bytes(number % 256 for number in range(size))


def shown(value: bytes) -> str:
    return value.hex() if len(value) <= LIMIT else f"sha256:{hashlib.sha256(value).hexdigest()}:{len(value)}"


def domain_keys() -> DomainKeys:
    return DomainKeys.derive(vault_id=VAULT, domain_id=DOMAIN, secret=DOMAIN_SECRET)


def host_keys() -> keys.HostKeys:
    return keys.HostKeys(
        vault_id=VAULT,
        host_id=HOST,
        recovery_seed=SEED,
        signing=Secret(SIGNING.private_bytes_raw()),
        host_secret=Secret(stream("host secret", 32)),
        domains={DOMAIN: DOMAIN_SECRET},
        vault_signer=Secret(stream("vault signer", 32)),
        vault_sha256=stream("vault.json", 32),
    )


def place(label: str, offset: int) -> Place:
    return Place(
        HOST, stream(f"pack {label}", 32), offset, 1000, 4000, stream(f"id {label}", 32), stream(f"key {label}", 32)
    )


def head() -> Head:
    return Head(
        vault=VAULT,
        host=HOST,
        point=ULID_A,
        seq=7,
        prev_point=ULID_B,
        prev_sha256=stream("prev", 32),
        job=DOMAIN,
        attempt=2,
        epoch=1,
        fence=9,
        source="system-state+files",
        created="2026-01-02T03:04:05+00:00",
        domain=DOMAIN,
        codec="zstd-1.5.7-l1",
        key_id=keys.key_id_of(hpke.public_key(SEED)),
        config_seq=3,
        config_sha256=stream("config", 32),
        lists=(stream("page", 32),),
        indexes=((uuid_bytes(HOST), ulid_bytes(ULID_B), stream("index", 32)),),
        files=3,
        logical_bytes=2**40,
        new_bytes=5,
        stored_bytes=6,
        packs=1,
        os_build="26100",
        consistency="live read",
        warnings=1,
    )


def derivations() -> Vectors:
    made = domain_keys()
    return {
        "vault": VAULT,
        "domain": DOMAIN,
        "secret": DOMAIN_SECRET.reveal().hex(),
        **{f"K_{name}": getattr(made, name).hex() for name in ("fingerprint", "block", "index", "gear", "cache")},
        "gear_seed": str(made.gear_seed),
        "vault_id_bytes": uuid_bytes(VAULT).hex(),
        "ulid": ULID_A,
        "ulid_bytes": ulid_bytes(ULID_A).hex(),
    }


def blocks() -> Vectors:
    made, aad = domain_keys(), block_aad(VAULT)
    found: Vectors = {"aad": aad.hex(), "libzstd": ".".join(map(str, zstandard.ZSTD_VERSION))}
    for name, plain in {"zstd": TEXT, "raw": stream("incompressible", 100), "empty": b""}.items():
        sealed = seal(plain, made, aad=aad, level=1)
        if open_block(sealed.data, sealed.key, sealed.id, aad=aad) != plain:
            raise ValueError(name)
        found[name] = {
            "plain": shown(plain),
            "fingerprint": fingerprint(plain, made).hex(),
            "key": sealed.key.hex(),
            "id": sealed.id.hex(),
            "sealed": shown(sealed.data),
        }
    return found


def packs() -> Vectors:
    builder = PackBuilder(host=HOST, domain_id=DOMAIN, random_bytes=counted)
    made, aad = domain_keys(), block_aad(VAULT)
    placed = [builder.add(seal(plain, made, aad=aad, level=1)) for plain in (TEXT, stream("incompressible", 100))]
    pack = builder.close()
    if pack is None:
        raise ValueError("no pack")
    magic, version, random = HEADER.unpack_from(pack.data)
    return {
        "header": bytes(pack.data[: HEADER.size]).hex(),
        "magic": magic.decode(),
        "version": version,
        "random": random.hex(),
        "key": names.pack(HOST, pack.give_name()),
        "blocks": [[block.offset, block.length, block.plain_size] for block in placed],
        "size": len(pack.data),
        "padding": [[size, padding(size)] for size in (39, 4096, 4097, 2**17 + 1, 10_000_000, 14 * 2**20 - 1, 2**24)],
    }


def pages() -> Vectors:
    refs = [PackRef(HOST, stream("pack one", 32), 14_000_000), PackRef(DOMAIN, stream("pack two", 32), 23 * 2**20)]
    (page,) = pages_of_packs(HOST, refs, counted)
    of_pages = root_page(HOST, PageKind.PAGES, [page.named], counted)
    index = NamedObject(names.index(HOST, ULID_A), stream("index", 32))
    of_indexes = root_page(HOST, PageKind.INDEXES, [index], counted)
    every = {"packs": page, "pages": of_pages, "indexes": of_indexes}
    read = {kind: read_page(each.key, each.data, PageKind[kind.upper()]) for kind, each in every.items()}
    if (read["packs"].packs, read["pages"].objects, read["indexes"].objects) != (tuple(refs), (page.named,), (index,)):
        raise ValueError("pages")
    return {name: {"key": each.key, "data": each.data.hex()} for name, each in every.items()}


def indexes() -> Vectors:
    rows = [
        IndexRow(stream("block two", 32), stream("pack", 32), 1000, 538, 62),
        IndexRow(stream("block one", 32), stream("pack", 32), 1000, 38, 500),
    ]
    key, made = names.index(HOST, ULID_A), domain_keys()
    data = write_index(rows, host=HOST, object_key=key, keys=made, codec="zstd-1.5.7-l1", random_bytes=counted)
    opened = read_index(data, object_key=key, keys=made)
    return {
        "object": key,
        "key": blake3(counted(32) + key.encode(), key=made.index).hexdigest(),
        "data": data.hex(),
        "front": [opened.codec, opened.host, [[sha.hex(), size] for sha, size in opened.packs]],
        "rows": [[row.id.hex(), row.offset, row.length] for row in opened.rows()],
    }


def trees() -> Vectors:
    entry = Entry(
        path=b"etc/\xffname", kind=Kind.FILE, size=4500, mtime=(-1, 999_999_999), mode=0o640, uid=1, gid=2, owner="o",
        inode=2**63, xattrs=((b"user.a", b"\0"),), digest=stream("digest", 32), created=(2**33, 1),
        reparse=b"\x03\0\0\xa0", streams=(Stream(name=b"Zone", size=7, digest=stream("zone", 32), ranges=(0, 90, 7)),),
    )  # fmt: skip
    pieces = [Piece(place("one", 38), 100, 500), Piece(None, 0, 3000), Piece(place("two", 2000), 0, 1000)]
    builder = TreeBlockBuilder(domain_keys().gear)
    builder.add(entry, pieces, [place("three", 4000)])
    tree, ranges = builder.finish(), write_range_block(pieces)
    root = write_root([(place("tree", 38), b"etc")])
    block = read_tree_block(tree)
    (back,) = block.entries()
    if (
        list(block.pieces(back)) != pieces
        or list(read_range_block(ranges)) != pieces
        or len(read_root(root).blocks) != 1
    ):
        raise ValueError("tree")
    empty = TreeBlockBuilder(domain_keys().gear).finish()
    if back.streams != entry.streams or list(read_tree_block(empty).entries()):
        raise ValueError("entry")
    return {"tree_block": tree.hex(), "range_block": ranges.hex(), "root": root.hex(), "empty": empty.hex()}


def signatures() -> Vectors:
    lease = LeaseDocument(job=DOMAIN, attempt=1, epoch=0, fence=3, point=ULID_A, created="2026-01-02T03:04:05+00:00")
    key = names.lease(HOST, ULID_B)
    document = write_signed("lease", lease, vault_id=VAULT, object_key=key, signer=SIGNING)
    public = SIGNING.public_key()
    if read_signed("lease", document, LeaseDocument, vault_id=VAULT, object_key=key, public=public) != lease:
        raise ValueError("lease")
    sealed_root, head_bytes = stream("sealed root", 1200), msgspec.msgpack.encode(head())
    message = b"stateward point v1\0" + head_bytes + hashlib.sha256(sealed_root).digest()
    raw = len(head_bytes).to_bytes(4, "little") + head_bytes + SIGNING.sign(message) + sealed_root
    StoredPoint.parse(raw).verify(public, vault_id=VAULT, object_key=names.point(HOST, ULID_A))
    return {
        "private": SIGNING.private_bytes_raw().hex(),
        "public": public.public_bytes_raw().hex(),
        "lease": {"object": key, "data": document.hex()},
        "point": {
            "head": head_bytes.hex(),
            "signature": SIGNING.sign(message).hex(),
            "sha256": hashlib.sha256(raw).hexdigest(),
        },
    }


def recovery_key() -> Vectors:
    public = hpke.public_key(SEED)
    return {
        "seed": SEED.reveal().hex(),
        "public": shown(public),
        "draft_public": hpke.public_key(DRAFT_SEED)[:36].hex(),
        "key_id": keys.key_id_of(public),
        "root_info": root_info(vault_id=VAULT, object_key=names.point(HOST, ULID_A)).hex(),
    }


RESTORE: dict[str, Any] = {
    "vault_id": VAULT,
    "job_id": DOMAIN,
    "source_host": HOST,
    "point": ULID_A,
    "target_host": "99999999-8888-7777-6666-555555555555",
    "destination": "/srv/\udcffhere",
    "conflict": "copy",
    "includes": ("etc/**", "home/*/.ssh"),
}
"""What a grant is for."""


def grants() -> Vectors:
    public = hpke.public_key(DRAFT_SEED)
    info, scratch = (
        grant.GrantTerms(**{**RESTORE, **changed}).info for changed in ({}, {"destination": None, "includes": ()})
    )
    message = grant._message(public, info, b"sealed")
    return {
        "restore_key_signature": grant.sign_restore_key(public, job_id=DOMAIN, signer=SIGNING).hex(),
        "info": info.hex(),
        "info_scratch": scratch.hex(),
        "signed": shown(message),
        "signature": SIGNING.sign(message).hex(),
    }


def cache() -> Vectors:
    made = domain_keys()
    print_, key = fingerprint(TEXT, made), stream("block key", 32)
    masked = _masked(made, print_, key)
    if _masked(made, print_, masked) != key:
        raise ValueError("mask")
    return {"lookup": _lookup(made, print_).hex(), "key": key.hex(), "masked": masked.hex()}


def cuts() -> Vectors:
    data = memoryview(stream("cut me", 400_000))
    small = Chunking(min_size=4096, average_size=16384, max_size=65536)
    usual = memoryview(stream("cut me into blocks", 6 * 1024 * 1024))
    seed = domain_keys().gear_seed
    return {
        "small": [length for _, length in Cutter(small, seed).cut(data, final=True)],
        "default": [length for _, length in Cutter(Chunking(), seed).cut(usual, final=True)],
        "default_other_seed": [length for _, length in Cutter(Chunking(), 1).cut(usual, final=True)],
    }


def opened(frozen: Vectors) -> Vectors:
    """What the frozen random objects hold: a wrapping with its salt, a sealed point, an HPKE ciphertext, a grant."""
    unwrapped = keys.unwrap(base64.b64decode(frozen["wrapping"]), PASSPHRASE, vault_id=VAULT, host_id=HOST)
    wrapping = keys.read_wrapping(base64.b64decode(frozen["wrapping"]))
    parameters = wrapping.argon2 or keys.Argon2Parameters()
    point = StoredPoint.parse(base64.b64decode(frozen["point"]))
    point.verify(SIGNING.public_key(), vault_id=VAULT, object_key=names.point(HOST, ULID_A))
    return {
        "passphrase": PASSPHRASE.reveal(),
        "salt": parameters.salt.hex(),
        "argon2": [parameters.iterations, parameters.memory_kib, parameters.lanes],
        "argon2_key_and_check": [part.hex() for part in keys._stretch(PASSPHRASE, parameters)],
        "contents": [
            unwrapped.recovery_seed.reveal().hex(),
            unwrapped.signing.reveal().hex(),
            unwrapped.host_secret.reveal().hex(),
            {domain: secret.reveal().hex() for domain, secret in unwrapped.domains.items()},
            unwrapped.vault_signer.reveal().hex() if unwrapped.vault_signer else None,
            unwrapped.vault_sha256.hex(),
        ],
        "root": open_root(point, SEED).hex(),
        "hpke": hpke.open_sealed(SEED, base64.b64decode(frozen["hpke"]), info=b"known answer").decode(),
        "grant": open_grant(frozen).hex(),
    }


def open_grant(frozen: Vectors, **changed: Any) -> bytes:
    """The root in the frozen grant, as the target opens it, or fails to for a changed restore."""
    wanted = {"source": SIGNING.public_key(), "seed": DRAFT_SEED, **RESTORE, **changed}
    source, seed = wanted.pop("source"), wanted.pop("seed")
    return grant.open_grant(base64.b64decode(frozen["grant"]), seed, grant.GrantTerms(**wanted), source=source)


def freeze() -> Vectors:
    """New random objects; their bytes differ each time, what they hold does not."""
    from common.vault.points import write_point

    public = hpke.public_key(SEED)
    root = write_root([(place("tree", 38), b"etc")])
    made = {
        "wrapping": keys.wrap(host_keys(), PASSPHRASE),
        "point": write_point(head(), root, recovery_public=public, signer=SIGNING),
        "hpke": hpke.seal_to(public, b"opened by the seed alone", info=b"known answer"),
        "grant": grant.make_grant(root, hpke.public_key(DRAFT_SEED), grant.GrantTerms(**RESTORE), signer=SIGNING),
    }
    return {name: base64.b64encode(raw).decode() for name, raw in made.items()}


SECTIONS = {
    "derivations": derivations,
    "blocks": blocks,
    "packs": packs,
    "pages": pages,
    "indexes": indexes,
    "trees": trees,
    "signatures": signatures,
    "recovery_key": recovery_key,
    "grants": grants,
    "cache": cache,
    "cuts": cuts,
}


def main() -> None:
    vectors: Vectors = {name: make() for name, make in SECTIONS.items()}
    keep = VECTORS.exists() and "--freeze" not in sys.argv
    frozen = json.loads(VECTORS.read_text(encoding="utf-8"))["frozen"] if keep else freeze()
    vectors["frozen"] = frozen
    vectors["opened"] = opened(frozen)
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

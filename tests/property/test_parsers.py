"""Whatever a store gives back, every parser either reads it or raises one of our errors; what was written is read equal.

Bytes are valid ones that were mutated, or made from chance. Where a seal or a signature stands before a parser, the
mutated inside is sealed or signed again: a host of the same domain, or a thief of the signer's key, could do that.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import struct
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.errors import StatewardError, VaultUrlInvalid
from common.ids import new_ulid, new_uuid, uuid_bytes
from common.secret import Secret
from common.vault import hpke, names
from common.vault.blocks import block_aad, open_block, seal, unpack
from common.vault.derive import DomainKeys
from common.vault.documents import ConfigDocument, HostDocument, LeaseDocument, NamedObject, StateDocument
from common.vault.entry import Entry, Kind
from common.vault.index import IndexRow, index_domain, read_index, write_index
from common.vault.keys import Argon2Parameters, Wrapping, read_wrapping, unwrap
from common.vault.location import VaultLocation
from common.vault.packs import HEADER, LARGEST, PackBuilder
from common.vault.pages import PackRef, PageKind, pages_of_packs, read_page, root_page
from common.vault.points import Head, StoredPoint, open_root, write_point
from common.vault.signed import read_signed, read_unverified, write_signed
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
from common.vault.vaults import parse_vault_document

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
EXAMPLES = settings(max_examples=200, deadline=None)

VAULT, HOST, DOMAIN, POINT = new_uuid(), new_uuid(), new_uuid(), new_ulid()
KEYS = DomainKeys.derive(vault_id=VAULT, domain_id=DOMAIN, secret=Secret(bytes(32)))
SIGNER = Ed25519PrivateKey.generate()
PUBLIC = SIGNER.public_key()
SEED = Secret(secrets.token_bytes(32))
RECOVERY = hpke.public_key(SEED)
AAD = block_aad(VAULT)

sha256s = st.binary(min_size=32, max_size=32)
u31 = st.integers(0, 2**31 - 1)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with a few bytes changed, cut, repeated, or put in."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat", "end"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            data[at : at + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xc0", b"\x80\0\0\0"]))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif how == "repeat":
            data[at:at] = data[at : at + 32]
        else:
            del data[at:]
    return bytes(data)


def hostile(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(mutated(valid), mutated(valid), st.binary(max_size=300), st.just(b""))


def only_our_errors(parse: Callable[[], object]) -> None:
    """It may be read; any error but ours fails the test."""
    with contextlib.suppress(StatewardError):
        parse()


places = st.builds(
    Place,
    host=st.just(HOST),
    pack=sha256s,
    offset=st.integers(38, 2**24),
    length=st.integers(18, 4 * 2**20),
    plain_size=st.integers(1, 4 * 2**20),
    id=sha256s,
    key=sha256s,
)
entries = st.builds(
    Entry,
    path=st.binary(min_size=1, max_size=60),
    kind=st.sampled_from(list(Kind)).map(int),
    size=st.integers(0, 2**62),
    mtime=st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 999_999_999)),
    ctime=st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 999_999_999)),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    owner=st.text(max_size=8),
    device=st.integers(0, 2**63),
    inode=st.integers(0, 2**64 - 1),
    links=st.integers(1, 2**31),
    target=st.binary(max_size=30),
    node=st.tuples(u31, u31),
    xattrs=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=40)), max_size=3).map(tuple),
    digest=st.sampled_from([b"", bytes(32)]),
)


@st.composite
def contents(draw: st.DrawFn) -> list[Piece]:
    pieces = []
    for place in draw(st.lists(st.none() | places, max_size=5, unique_by=lambda place: place and place.id)):
        if place is None:
            pieces.append(Piece(None, 0, draw(st.integers(0, 2**40))))
        else:
            offset = draw(st.integers(0, place.plain_size - 1))
            pieces.append(Piece(place, offset, draw(st.integers(0, place.plain_size - offset))))
    return pieces


def tree_block(rows: list[tuple[Entry, list[Piece]]]) -> bytes:
    builder = TreeBlockBuilder(KEYS.gear)
    for entry, pieces in rows:
        builder.add(entry, pieces)
    return builder.finish()


def head(**changes: object) -> Head:
    wanted: dict[str, object] = {
        "vault": VAULT,
        "host": HOST,
        "point": POINT,
        "seq": 3,
        "job": new_uuid(),
        "attempt": 1,
        "epoch": 0,
        "fence": 3,
        "config_seq": 1,
        "config_sha256": bytes(32),
        "source": "files",
        "created": "2030-01-01T00:00:00+00:00",
        "domain": DOMAIN,
        "codec": "zstd-1.5.7-l1",
        "key_id": "00",
        "lists": (bytes(32),),
        "indexes": ((uuid_bytes(HOST), bytes(16), bytes(32)),),
        "files": 1,
        "logical_bytes": 1,
        "new_bytes": 1,
        "stored_bytes": 1,
        "packs": 1,
        **changes,
    }
    return Head(**wanted)  # type: ignore[arg-type]


PLACE = Place(HOST, bytes(32), 38, 100, 90, bytes(32), bytes(32))
A_TREE = tree_block([(Entry(path=b"a/b", kind=0, size=95), [Piece(PLACE, 5, 85), Piece(None, 0, 10)])] * 3)
A_RANGE = write_range_block([Piece(PLACE, 0, 50), Piece(None, 0, 2**40)])
A_ROOT = write_root([(PLACE, b"a"), (PLACE, b"b")])
A_POINT = write_point(head(), A_ROOT, recovery_public=RECOVERY, signer=SIGNER)
A_WRAPPING = msgspec.msgpack.encode(
    Wrapping(
        kind="passphrase",
        vault=uuid_bytes(VAULT),
        host=uuid_bytes(HOST),
        key_id="00",
        public_key=RECOVERY,
        argon2=Argon2Parameters(iterations=1, memory_kib=8, lanes=1, salt=bytes(16)),
        check=bytes(32),
        sealed=bytes(200),
    )
)
INDEX_KEY = names.index(HOST, POINT)
AN_INDEX = write_index(
    [IndexRow(bytes([number] * 32), bytes(32), 1000, 38, 50) for number in range(3)],
    host=HOST,
    object_key=INDEX_KEY,
    keys=KEYS,
    codec="zstd-1.5.7-l1",
    random_bytes=secrets.token_bytes,
)
DOCUMENTS = [
    ("config", ConfigDocument(seq=1, created="", codec="zstd-1.5.7-l1", signer=bytes(32))),
    (
        "host",
        HostDocument(host=HOST, name="n", signing_public=bytes(32), recovery_public=RECOVERY, key_id="0", created=""),
    ),
    ("state", StateDocument(decision="received", point_sha256=bytes(32), created="", tags=("a",))),
    (
        "lease",
        LeaseDocument(
            job=new_uuid(),
            attempt=1,
            epoch=0,
            fence=1,
            point=POINT,
            created="",
            wrote_lists=(NamedObject("lists/x/y", bytes(32)),),
        ),
    ),
]


# ── what was written is read equal ──────────────────────────────────────────────────────────────────────────────────


@EXAMPLES
@given(
    plain=st.binary(max_size=5000) | st.binary(max_size=40).map(lambda part: part * 200), level=st.sampled_from([1, 3])
)
def test_blocks(plain: bytes, level: int) -> None:
    block = seal(plain, KEYS, aad=AAD, level=level)
    assert open_block(block.data, block.key, block.id, aad=AAD) == plain
    assert seal(memoryview(bytearray(plain)), KEYS, aad=AAD, level=level) == block
    assert len(block.data) <= len(plain) + 17


@EXAMPLES
@given(rows=st.lists(st.tuples(sha256s, sha256s, st.integers(38, 2**24), st.integers(1, 2**22)), max_size=20))
def test_indexes(rows: list[tuple[bytes, bytes, int, int]]) -> None:
    sizes = {pack: LARGEST for _, pack, _, _ in rows}
    written = [IndexRow(block, pack, sizes[pack], offset, length) for block, pack, offset, length in rows]
    data = write_index(written, host=HOST, object_key=INDEX_KEY, keys=KEYS, codec="c", random_bytes=secrets.token_bytes)
    index = read_index(data, object_key=INDEX_KEY, keys=KEYS)
    wanted = {row.id: row for row in written}
    assert {row.id: row for row in index.rows()} == wanted
    assert all(index.find(block) == row for block, row in wanted.items())
    assert index.find(secrets.token_bytes(32)) is None
    assert (index.host, index.domain_id, index.codec) == (HOST, DOMAIN, "c")


@EXAMPLES
@given(packs=st.lists(st.tuples(sha256s, st.integers(HEADER.size + 1, LARGEST)), max_size=30))
def test_pages(packs: list[tuple[bytes, int]]) -> None:
    refs = [PackRef(HOST, sha256, size) for sha256, size in packs]
    pages = pages_of_packs(HOST, refs, secrets.token_bytes)
    read = [read_page(page.key, page.data, PageKind.PACKS) for page in pages]
    assert [pack for page in read for pack in page.packs] == refs
    named = [page.named for page in pages]
    root = root_page(HOST, PageKind.PAGES, named, secrets.token_bytes)
    assert list(read_page(root.key, root.data, PageKind.PAGES).objects) == named


@EXAMPLES
@given(rows=st.lists(st.tuples(entries, contents()), max_size=6))
def test_tree_blocks(rows: list[tuple[Entry, list[Piece]]]) -> None:
    """(Blocks are told apart by their ids, so an id comes once.)"""
    ids = [piece.place.id for _, pieces in rows for piece in pieces if piece.place is not None]
    assume(len(ids) == len(set(ids)))
    block = read_tree_block(tree_block(rows))
    read = list(block.entries())
    assert [msgspec.structs.replace(entry, ranges=()) for entry in read] == [entry for entry, _ in rows]
    assert [list(block.pieces(entry)) for entry in read] == [pieces for _, pieces in rows]


@EXAMPLES
@given(pieces=contents(), blocks=st.lists(st.tuples(places, st.binary(max_size=20)), max_size=5))
def test_range_blocks_and_roots(pieces: list[Piece], blocks: list[tuple[Place, bytes]]) -> None:
    assert list(read_range_block(write_range_block(pieces))) == pieces
    root = read_root(write_root(blocks))
    assert [(row.place, row.first_path) for row in root.blocks] == blocks


@settings(max_examples=50, deadline=None)
@given(root=st.binary(max_size=2000), seq=u31, warnings=u31, consistency=st.text(max_size=50))
def test_points(root: bytes, seq: int, warnings: int, consistency: str) -> None:
    wanted = head(seq=seq, warnings=warnings, consistency=consistency)
    raw = write_point(wanted, root, recovery_public=RECOVERY, signer=SIGNER)
    point = StoredPoint.parse(raw)
    point.verify(PUBLIC, vault_id=VAULT, object_key=wanted.key)
    assert point.head == wanted
    assert point.sha256 == hashlib.sha256(raw).digest()
    assert open_root(point, SEED) == root


@pytest.mark.parametrize(("kind", "document"), DOCUMENTS)
def test_signed_documents(kind: str, document: msgspec.Struct) -> None:
    raw = write_signed(kind, document, vault_id=VAULT, object_key="a/key", signer=SIGNER)
    assert read_signed(kind, raw, type(document), vault_id=VAULT, object_key="a/key", public=PUBLIC) == document
    for changed in ({"kind": "other"}, {"vault_id": new_uuid()}, {"object_key": "a/ke"}):
        how = {"kind": kind, "vault_id": VAULT, "object_key": "a/key", **changed}
        with pytest.raises(StatewardError):
            read_signed(how.pop("kind"), raw, type(document), public=PUBLIC, **how)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_packs(sizes: list[int]) -> None:
    builder = PackBuilder(host=HOST, domain_id=DOMAIN, random_bytes=secrets.token_bytes)
    blocks = [seal(secrets.token_bytes(size), KEYS, aad=AAD, level=1) for size in sizes]
    placed = [builder.add(block) for block in blocks]
    pack = builder.close()
    assert pack is not None
    assert pack.give_name() == hashlib.sha256(pack.data).digest() == pack.name.sha256
    assert (pack.name.size, builder.close()) == (len(pack.data), None)
    assert HEADER.size + sum(len(block.data) for block in blocks) <= len(pack.data) <= LARGEST
    for block, place in zip(blocks, placed, strict=True):
        assert pack.data[place.offset : place.offset + place.length] == block.data


# ── whatever comes, only our errors ─────────────────────────────────────────────────────────────────────────────────


@EXAMPLES
@given(message=st.one_of(st.binary(max_size=200), mutated(b"\x01" + zstandard.compress(b"some text" * 50))))
def test_opening_what_somebody_else_sealed(message: bytes) -> None:
    key = blake3(message, key=KEYS.block).digest()
    data = AESGCM(key).encrypt(bytes(12), message, AAD)
    only_our_errors(lambda: open_block(data, key, blake3(data).digest(), aad=AAD))
    only_our_errors(lambda: unpack(message))


@EXAMPLES
@given(data=hostile(seal(b"plain" * 100, KEYS, aad=AAD, level=1).data), key=st.binary(max_size=40), block_id=sha256s)
def test_opening_bytes_that_are_no_block(data: bytes, key: bytes, block_id: bytes) -> None:
    with pytest.raises(StatewardError):
        open_block(data, key, block_id, aad=AAD)
    only_our_errors(lambda: open_block(data, key, blake3(data).digest(), aad=AAD))


@EXAMPLES
@given(data=hostile(AN_INDEX))
def test_reading_a_changed_index(data: bytes) -> None:
    only_our_errors(lambda: index_domain(data, INDEX_KEY))
    if data != AN_INDEX:
        with pytest.raises(StatewardError):
            read_index(data, object_key=INDEX_KEY, keys=KEYS)


def index_plain() -> bytes:
    random = AN_INDEX[6:38]
    key = blake3(random + INDEX_KEY.encode(), key=KEYS.index).digest()
    return AESGCM(key).decrypt(bytes(12), AN_INDEX[54:], INDEX_KEY.encode())


@EXAMPLES
@given(plain=hostile(index_plain()))
def test_reading_an_index_of_a_hostile_host_of_the_domain(plain: bytes) -> None:
    random = bytes(32)
    key = blake3(random + INDEX_KEY.encode(), key=KEYS.index).digest()
    sealed = AESGCM(key).encrypt(bytes(12), plain, INDEX_KEY.encode())
    data = AN_INDEX[:6] + random + uuid_bytes(DOMAIN) + sealed

    def read() -> None:
        index = read_index(data, object_key=INDEX_KEY, keys=KEYS)
        for row in index.rows():
            names.pack(index.host, row.pack)
        index.find(bytes(32))

    only_our_errors(read)


A_PAGE = pages_of_packs(HOST, [PackRef(HOST, bytes(32), 5)] * 2, secrets.token_bytes)[0].data
A_ROOT_PAGE = root_page(HOST, PageKind.INDEXES, [NamedObject(INDEX_KEY, bytes(32))] * 2, secrets.token_bytes).data


@EXAMPLES
@given(data=st.one_of(hostile(A_PAGE), hostile(A_ROOT_PAGE)), kind=st.sampled_from(PageKind))
def test_reading_a_page_under_its_own_name(data: bytes, kind: PageKind) -> None:
    key = names.page(HOST, hashlib.sha256(data).digest())
    only_our_errors(lambda: read_page(key, data, kind))
    with pytest.raises(StatewardError):
        read_page(names.page(HOST, bytes(32)), data, kind)


@EXAMPLES
@given(plain=st.one_of(hostile(A_TREE), hostile(A_RANGE)))
def test_reading_a_tree_block(plain: bytes) -> None:
    def read() -> None:
        block = read_tree_block(plain)
        for entry in block.entries():
            only_our_errors(lambda entry=entry: list(block.pieces(entry)))  # type: ignore[misc]
            only_our_errors(lambda entry=entry: block.range_places(entry))  # type: ignore[misc]

    only_our_errors(read)
    only_our_errors(lambda: list(read_range_block(plain)))


@EXAMPLES
@given(raw=hostile(A_ROOT))
def test_reading_a_root(raw: bytes) -> None:
    only_our_errors(lambda: [names.pack(row.place.host, row.place.pack) for row in read_root(raw).blocks])


@EXAMPLES
@given(raw=hostile(A_POINT))
def test_reading_a_point(raw: bytes) -> None:
    def read() -> None:
        point = StoredPoint.parse(raw)
        only_our_errors(lambda: point.verify(PUBLIC, vault_id=VAULT, object_key=point.key))
        only_our_errors(lambda: open_root(point, SEED))

    only_our_errors(read)


@EXAMPLES
@given(body=hostile(msgspec.msgpack.encode(head())))
def test_reading_a_point_of_a_hostile_host(body: bytes) -> None:
    signature = SIGNER.sign(b"stateward point v1\0" + body + hashlib.sha256(b"root").digest())
    raw = struct.pack("<I", len(body)) + body + signature + b"root"

    def read() -> None:
        point = StoredPoint.parse(raw)
        point.verify(PUBLIC, vault_id=VAULT, object_key=point.key)
        for named in (*point.head.list_objects, *point.head.index_objects):
            assert named.key
        open_root(point, SEED)

    only_our_errors(read)


@EXAMPLES
@given(data=st.data(), which=st.sampled_from(DOCUMENTS))
def test_reading_signed_documents(data: st.DataObject, which: tuple[str, msgspec.Struct]) -> None:
    kind, document = which
    valid = write_signed(kind, document, vault_id=VAULT, object_key="key", signer=SIGNER)
    raw = data.draw(hostile(valid))
    only_our_errors(lambda: read_unverified(raw, type(document)))
    if raw != valid:
        with pytest.raises(StatewardError):
            read_signed(kind, raw, type(document), vault_id=VAULT, object_key="key", public=PUBLIC)
    body = data.draw(hostile(msgspec.msgpack.encode(document)))
    message = f"stateward {kind} v1\0".encode() + uuid_bytes(VAULT) + b"\x03\0\0\0key" + body
    again = struct.pack("<I", len(body)) + body + SIGNER.sign(message)
    only_our_errors(lambda: read_signed(kind, again, type(document), vault_id=VAULT, object_key="key", public=PUBLIC))


@EXAMPLES
@given(raw=hostile(A_WRAPPING))
def test_opening_a_wrapping(raw: bytes) -> None:
    only_our_errors(lambda: read_wrapping(raw))
    with pytest.raises(StatewardError):
        unwrap(raw, Secret("correct horse battery"), vault_id=VAULT, host_id=HOST)


@EXAMPLES
@given(raw=hostile(b'{"v":1,"vault":"%s","name":"n","created":"","signer":"AAAA","chunking":{}}' % VAULT.encode()))
def test_reading_vault_json(raw: bytes) -> None:
    only_our_errors(lambda: parse_vault_document(raw))


@EXAMPLES
@given(sealed=hostile(hpke.seal_to(RECOVERY, b"root", info=b"i")))
def test_opening_what_is_sealed_to_a_key(sealed: bytes) -> None:
    only_our_errors(lambda: hpke.open_sealed(SEED, sealed, info=b"i"))


@EXAMPLES
@given(
    url=st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map(lambda text: f"s3://{text}"),
        st.text(max_size=40).map(lambda text: f"s3://bucket/{text}"),
        st.text(max_size=40).map(lambda text: f"s3://bucket?endpoint={text}"),
        st.text(max_size=40).map(lambda text: f"file://{text}"),
    )
)
def test_parsing_the_url_of_a_vault(url: str) -> None:
    try:
        location = VaultLocation.parse(url)
    except VaultUrlInvalid:
        return
    assert VaultLocation.parse(location.url) == location

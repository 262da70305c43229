"""What `stateward-worker` says, and how it ends, when what it is given or what it finds is wrong. Nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import socketserver
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from e2e_programs import ROOT, Done, below, content_of, environment, run, started, together, until, worker
from e2e_site import MIB, PASSPHRASE, Site, new_site

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def copied(site: Site, tmp_path: Path) -> Path:
    """A copy of the vault, to be damaged."""
    return Path(shutil.copytree(site.vault, tmp_path / "copy"))


def flip(file: Path, at: int) -> None:
    """Change one byte."""
    content = bytearray(file.read_bytes())
    content[at] ^= 0x01
    file.write_bytes(content)


# ── passphrase ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_passphrase_that_is_wrong_by_one_byte_opens_nothing(site: Site, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(PASSPHRASE[:-1] + chr(ord(PASSPHRASE[-1]) ^ 0x01) + "\n")
    commands = (("recover", "--to", tmp_path / "out"), ("ls",))
    for done in together(lambda words: site.run(*words, "--passphrase-file", wrong), commands):
        done.refused(7, "wrong_passphrase", "does not open key")
        assert PASSPHRASE[:-1] not in done.err
    assert not (tmp_path / "out").exists()


def test_an_unfit_passphrase_makes_no_vault(site: Site, tmp_path: Path) -> None:
    unfit = {
        b"fifteen letters": "15 characters; it needs at least 16",
        "pässwort, das lang genug ist".encode(): "other than printable ASCII",
        b"a tab\tin a passphrase of length": "other than printable ASCII",
        b"": "0 characters",
    }

    def init(number: int) -> Done:
        file = tmp_path / f"unfit-{number}"
        file.write_bytes(list(unfit)[number] + b"\n")
        return site.run("init", "--passphrase-file", file, vault=f"file://{tmp_path}/vault")

    for done, words in zip(together(init, range(len(unfit))), unfit.values(), strict=True):
        done.refused(2, "passphrase_unfit", words)
    assert not (tmp_path / "vault").exists()


def test_a_passphrase_file_that_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    site.run("recover", "--passphrase-file", missing, "--to", tmp_path / "out").refused(
        2, "config_invalid", str(missing)
    )


# ── addresses, and what is not there ────────────────────────────────────────────────────────────────────────────────


def test_a_malformed_vault_url_is_named(site: Site) -> None:
    urls = ("s3:/bucket", "file://relative/folder", "s3://bucket?endpoint=http://127.0.0.1:99999", "s3://[bucket")
    for done, url in zip(together(lambda url: site.run("points", vault=url), urls), urls, strict=True):
        done.refused(2, "vault_url_invalid", url)


def test_a_folder_without_a_vault_is_named(site: Site, tmp_path: Path) -> None:
    site.run("points", vault=f"file://{tmp_path}/none").refused(2, "bucket_missing", f"{tmp_path}/none")
    site.run("backup", site.source, vault=f"file://{tmp_path}").refused(2, "not_initialised", "no vault")


def test_backup_on_a_host_without_init_says_to_run_it(site: Site, tmp_path: Path) -> None:
    done = run(
        worker("backup", "--vault", site.url, "--json", site.source),
        environment(tmp_path, STATEWARD_STATE=str(tmp_path / "state")),
    )
    done.refused(2, "not_initialised", "not initialised in the vault")
    assert "stateward-worker init" in done.error["next_step"]


def test_a_second_init_keeps_the_first(site: Site) -> None:
    done = site.run("init", "--passphrase-file", site.passphrase)
    done.refused(2, "config_invalid", "already initialised")
    assert len(site.run("points").fine()["points"]) == 1


def test_what_is_to_be_backed_up_must_be_named_and_exist(site: Site, tmp_path: Path) -> None:
    site.run("backup").refused(2, "usage", "Nothing was named")
    site.run("backup", tmp_path / "none").refused(2, "usage", f"{tmp_path}/none does not exist")


def test_a_point_and_a_host_that_are_not_there_are_named(site: Site, tmp_path: Path) -> None:
    point = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    site.recover(tmp_path / "out", "--point", point).refused(2, "point_not_found", point)
    site.recover(tmp_path / "out", "--host", "nobody").refused(2, "host_not_found", "nobody")


@contextlib.contextmanager
def listening(answer: bytes, *, tls: Path | None = None) -> Iterator[int]:
    """A server that says the same to everybody, once each; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls is not None:
        context.load_cert_chain(tls)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                talk = context.wrap_socket(self.request, server_side=True) if tls else self.request
                talk.recv(65536)
                talk.sendall(answer)
                talk.close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def with_credentials(site: Site, port: int, scheme: str, folder: Path) -> Done:
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = somebody\naws_secret_access_key = something\n")
    return run(
        worker("points", "--vault", f"s3://bucket?endpoint={scheme}://127.0.0.1:{port}", "--json"),
        {**site.environ, "AWS_SHARED_CREDENTIALS_FILE": str(credentials)},
    )


def test_a_store_that_is_down_is_said_soon(site: Site, tmp_path: Path) -> None:
    with socket.socket() as bound:  # nobody listens on it, and nobody else can
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        done = with_credentials(site, port, "http", tmp_path)
    done.refused(6, "store_unavailable", f"http://127.0.0.1:{port} cannot be reached: Connection refused")
    assert done.seconds < 12, "a person waits for this"


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return file


def test_plain_http_where_tls_is_expected_is_said(site: Site, tmp_path: Path) -> None:
    """Some servers say so, as Go's do; others hang up."""
    text = b"Client sent an HTTP request to an HTTPS server.\n"
    head = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(text)
    with listening(head + text) as port:
        done = with_credentials(site, port, "http", tmp_path)
    done.refused(6, "tls_expected", "expects TLS")
    with listening(b"", tls=self_signed(tmp_path)) as port:
        done = with_credentials(site, port, "http", tmp_path)
    done.refused(6, "store_unavailable", "closed the connection")
    assert "https://" in done.error["next_step"]


def test_a_certificate_that_is_not_trusted_is_said(site: Site, tmp_path: Path) -> None:
    with listening(b"", tls=self_signed(tmp_path)) as port:
        done = with_credentials(site, port, "https", tmp_path)
    done.refused(6, "tls_expected", "CERTIFICATE_VERIFY_FAILED")
    assert "AWS_CA_BUNDLE" in done.error["next_step"]


# ── where to ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_that_is_not_empty_is_left_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    site.recover(tmp_path).refused(2, "target_not_empty", str(tmp_path))
    assert content_of(tmp_path) == {"mine": b"mine"}


def test_a_folder_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    closed = Path("/proc/stateward")  # where nobody makes a folder, root neither
    if not ROOT:
        (tmp_path / "closed").mkdir(mode=0o500)
        closed = tmp_path / "closed" / "below"
    targets = (tmp_path / "file", tmp_path / "file" / "below", closed)
    for done, target in zip(together(site.recover, targets), targets, strict=True):
        done.refused(2, "target_not_writable", str(target))
        assert "vanished" not in done.error["message"]


# ── space ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """20 MiB, less than the source; root alone may mount it."""
    folder = tmp_path / "volume"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def limited() -> None:
    """No file may become longer than 4 MiB: EFBIG, as on a volume that ends there."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))


if ROOT:

    def test_a_restore_that_does_not_fit_writes_nothing(site: Site, small_volume: Path) -> None:
        site.recover(small_volume / "out").refused(4, "no_space", "The restore needs", str(small_volume))
        assert content_of(small_volume) == {}

    def test_a_vault_that_is_full_is_said_and_the_next_run_goes_on(site: Site, small_volume: Path) -> None:
        state = ("--state", small_volume.parent / "state")
        url = f"file://{small_volume}/vault"
        site.run("init", "--passphrase-file", site.passphrase, *state, vault=url).fine()
        site.run("backup", site.source, *state, vault=url).refused(4, "no_space", "no space left")
        assert site.run("points", vault=url).fine()["points"] == []
        subprocess.run(["mount", "-o", "remount,size=200m", small_volume], check=True)
        assert site.run("backup", site.source, *state, vault=url).fine()["files"] == len(site.files)
        again = small_volume.parent / "out"
        site.recover(again, vault=url).fine()
        assert content_of(below(again, site.source)) == site.files


def test_files_that_may_not_become_so_long_fail_by_name_and_the_rest_is_there(site: Site, tmp_path: Path) -> None:
    done = site.recover(tmp_path / "out", preexec_fn=limited)
    assert done.code == 8, done.err
    failed = {Path(each["path"]).name for each in done.document["failed"]}
    assert failed == {name for name, content in site.files.items() if len(content) > 4 * MIB}
    assert content_of(below(tmp_path / "out", site.source)) == {"small": site.files["small"]}


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_vault_of_a_newer_format_is_not_touched(site: Site, copied: Path, tmp_path: Path) -> None:
    document = json.loads((copied / "vault.json").read_text())
    (copied / "vault.json").write_text(json.dumps({**document, "v": document["v"] + 1, "later": "unknown"}))
    before = content_of(copied)
    url = f"file://{copied}"
    commands = (
        ("points",),
        ("recover", "--passphrase-file", site.passphrase, "--to", tmp_path / "out"),
        ("backup", site.source),
        ("init", "--passphrase-file", site.passphrase, "--state", tmp_path / "state"),
    )
    for done in together(lambda words: site.run(*words, vault=url), commands):
        done.refused(7, "format_too_new", "format")
    assert content_of(copied) == before
    assert not (tmp_path / "out").exists()


def test_a_corrupted_and_a_missing_pack_cost_the_files_in_them(site: Site, copied: Path, tmp_path: Path) -> None:
    largest = sorted(copied.glob("packs/*/*"), key=lambda pack: pack.stat().st_size)
    flip(largest[-1], 5 * MIB)
    done = site.recover(tmp_path / "corrupt", vault=f"file://{copied}")
    assert done.code == 8, done.err
    failed = {Path(each["path"]).name for each in done.document["failed"]}
    assert failed
    assert len(failed) < len(site.files)
    restored = content_of(below(tmp_path / "corrupt", site.source))
    assert restored == {name: content for name, content in site.files.items() if name not in failed}

    largest[-2].unlink()
    done = site.recover(tmp_path / "missing", vault=f"file://{copied}")
    assert done.code == 8, done.err
    more = {Path(each["path"]).name for each in done.document["failed"]}
    assert failed < more
    restored = content_of(below(tmp_path / "missing", site.source))
    assert restored == {name: content for name, content in site.files.items() if name not in more}
    assert run(worker("verify", "--vault", f"file://{copied}", "--read-data", "all", "--json"), site.environ).code == 8


def test_a_corrupted_point_is_named_and_the_one_before_still_counts(tmp_path: Path) -> None:
    site = new_site(tmp_path)
    (site.source / "file").write_bytes(b"as it was")
    first = site.run("backup", site.source).fine()["point"]
    (site.source / "file").write_bytes(b"as it became")
    second = site.run("backup", site.source).fine()["point"]
    flip(next(site.vault.glob(f"points/*/{second}")), 100)

    site.recover(tmp_path / "out", "--point", second).refused(8, "damaged", second)
    latest = site.recover(tmp_path / "latest")
    assert latest.fine()["point"] == first
    assert second in latest.err
    assert content_of(below(tmp_path / "latest", site.source)) == {"file": b"as it was"}
    rows = {row["point"]: row["problem"] for row in site.run("points").fine()["points"]}
    assert rows[second]
    assert not rows[first]
    third = site.run("backup", site.source).fine()["point"]
    assert site.recover(tmp_path / "third").fine()["point"] == third
    assert content_of(below(tmp_path / "third", site.source)) == {"file": b"as it became"}


# ── at the same time, and interrupted ───────────────────────────────────────────────────────────────────────────────


def is_locked(state: Path) -> bool:
    """Whether a backup holds its lock."""
    for lock in state.glob("vaults/*/run.lock"):
        with contextlib.closing(sqlite3.connect(lock, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return True
    return False


def reads(pid: int, file: Path) -> bool:
    """Whether a process has a file open."""
    with contextlib.suppress(OSError):
        return any(each.readlink() == file for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.fixture
def busy(tmp_path: Path) -> Site:
    """A site whose source takes a while to read: one file that is long, and one that comes after it."""
    begun = new_site(tmp_path)
    (begun.source / "a-long-one").write_bytes(os.urandom(96 * MIB))
    (begun.source / "b-short-one").write_bytes(b"short")
    return begun


def test_a_second_backup_is_refused_and_a_file_that_vanishes_meanwhile_is_a_warning(busy: Site, tmp_path: Path) -> None:
    command = worker("backup", "--vault", busy.url, "--json", busy.source)
    with started(command, busy.environ, tmp_path / "first") as first:
        until(lambda: reads(first.pid, busy.source / "a-long-one"), every_s=0.002)
        first.signal(signal.SIGSTOP)
        assert is_locked(busy.state)
        busy.run("backup", busy.source).refused(10, "busy", "Another backup of this host")
        (busy.source / "b-short-one").unlink()
        first.signal(signal.SIGCONT)
        done = first.end()
    assert not is_locked(busy.state)
    assert done.code == 3, done.err
    assert [Path(each["path"]).name for each in done.document["warnings"]] == ["b-short-one"]
    busy.recover(tmp_path / "out").fine()
    assert list(content_of(below(tmp_path / "out", busy.source))) == ["a-long-one"]


def test_ctrl_c_ends_a_backup_and_the_next_one_uses_what_it_stored(busy: Site, tmp_path: Path) -> None:
    command = worker("backup", "--vault", busy.url, "--json", busy.source)
    with started(command, busy.environ, tmp_path / "first") as first:
        until(lambda: any(busy.vault.glob("packs/*/*")), every_s=0.002)
        first.signal(signal.SIGINT)
        first.end().refused(9, "cancelled", "cancelled")
    assert busy.run("points").fine()["points"] == []
    stored = set(busy.vault.glob("packs/*/*"))
    done = busy.run("backup", busy.source).fine()
    assert stored <= set(busy.vault.glob("packs/*/*"))
    kept = sum(pack.stat().st_size for pack in busy.vault.glob("packs/*/*"))
    assert kept < 96 * MIB + 18 * MIB, "more than one upload and the pack that was under way"
    assert done["stored_bytes"] < kept - 8 * MIB, "the second run sent all of it again"
    busy.recover(tmp_path / "out").fine()
    assert content_of(below(tmp_path / "out", busy.source)) == content_of(busy.source)


def test_a_usage_error_is_said_in_words_and_without_a_trace() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "backup", "--no-such-option"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert "Traceback" not in done.stderr

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from worker.platform.api import Outcome
from worker.reach import Endpoint, reachability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _loopback(socket_enabled: None) -> None:
    """These tests talk to servers of their own on the loopback interface."""


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                try:
                    talk(connection)
                except (ssl.SSLError, OSError):
                    return  # the other end has seen enough

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    return talk


def ask(address: str, **fields: object) -> tuple[Outcome, str]:
    found = reachability(Endpoint(name="store", address=address, **fields))  # type: ignore[arg-type]
    assert found.name == "reach_store"
    assert (found.outcome is Outcome.FAIL) == bool(found.next_step)
    return found.outcome, found.reason


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("http", b"HTTP/1.0 403 Forbidden\r\n\r\n", None),
        ("redis", b"+PONG\r\n", None),
        ("redis", b"-NOAUTH Authentication required.\r\n", None),
        ("http", b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", "expects TLS"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x16", "expects TLS"),
        ("redis", b"", "perhaps it expects TLS"),
        ("http", b"SSH-2.0-x\r\n", "no web server"),
        ("redis", b"HTTP/1.0 400\r\n", "no Redis server"),
        ("https", b"HTTP/1.0 400 Bad Request\r\n\r\n", "does not speak TLS"),
        ("rediss", b"-ERR\r\n", "does not speak TLS"),
    ],
)
def test_what_answers(scheme: str, answer: bytes, words: str | None) -> None:
    with server(answering(answer)) as port:
        outcome, reason = ask(f"{scheme}://127.0.0.1:{port}")
    assert outcome is (Outcome.PASS if words is None else Outcome.FAIL)
    assert (words or f"answers on 127.0.0.1:{port}") in reason


def test_a_bare_connection() -> None:
    with server(lambda _: None) as port:
        assert ask(f"127.0.0.1:{port}")[0] is Outcome.PASS


def test_nothing_listens_and_names_that_are_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nothing listens" in ask(f"http://127.0.0.1:{port}")[1]
    assert "is not known" in ask("https://no-such-host.invalid")[1]
    assert "malformed" in ask("ftp://x")[1]
    assert "malformed" in ask("only-a-host")[1]
    assert "malformed" in ask("https://")[1]
    assert "malformed" in ask("http://h:99999")[1]
    assert "malformed" in ask("http://" + "a" * 70)[1]


def test_no_answer_in_time() -> None:
    done = threading.Event()
    with server(lambda _: done.wait(5) and None) as port:
        outcome, reason = ask(f"http://127.0.0.1:{port}", timeout_s=0.2)
        done.set()
    assert (outcome, "does not answer" in reason) == (Outcome.FAIL, True)


def test_a_password_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "hunter2" not in ask(f"redis://user:hunter2@127.0.0.1:{port}")[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "both.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


def test_tls(certificate: Path) -> None:
    def talk(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    with server(talk) as port:
        outcome, reason = ask(f"https://127.0.0.1:{port}")
    assert (outcome, "its certificate is not trusted" in reason) == (Outcome.FAIL, True)
    with server(talk) as port:
        assert ask(f"https://localhost:{port}", ca_file=certificate)[0] is Outcome.PASS
    with server(talk) as port:
        outcome, reason = ask(f"http://127.0.0.1:{port}")
    assert (outcome, "TLS" in reason) == (Outcome.FAIL, True)

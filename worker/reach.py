"""Whether an endpoint can be reached, and if not, at which step: name, connection, TLS, or the wrong kind of server."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from worker.platform.api import CheckResult, Outcome
from worker.platform.reasons import in_words

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_SCHEMES = {"https": (443, True), "http": (80, False), "rediss": (6379, True), "redis": (6379, False)}
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_WORDS_OF_TLS = (b"HTTPS server", b"plain HTTP request")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
_LOOK_AT_TLS = "Look at the server's TLS settings."
_ANSWER_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    name: str
    """`store`, `coordinator`, `queue`."""
    address: str
    """An URL (https, http, rediss, redis), or host:port where a connection is all that can be asked."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    timeout_s: float = 5.0
    required: bool = True
    """False: a failure warns (a host lives without its queue)."""


def reachability(endpoint: Endpoint) -> CheckResult:
    """Looks the name up, connects, and says a few bytes; nothing is changed at the other end."""
    name = f"reach_{endpoint.name}"
    try:
        where = _reach(endpoint)
    except _Unreached as why:
        reason = f"The {endpoint.name} ({_shown(endpoint.address)}) cannot be reached: {why.reason}."
        outcome = Outcome.FAIL if endpoint.required else Outcome.WARN
        return CheckResult(name=name, outcome=outcome, reason=reason, next_step=why.next_step)
    return CheckResult(name=name, outcome=Outcome.PASS, reason=f"The {endpoint.name} answers on {where}.")


class _Unreached(Exception):
    def __init__(self, reason: str, next_step: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_step = next_step


def _reach(endpoint: Endpoint) -> str:
    try:
        scheme, host, port, tls = _parts(endpoint.address)
    except ValueError as error:
        raise _Unreached(f"its address is malformed: {error}", "Correct the address.") from error
    where = f"{host}:{port}"
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, socket.gaierror) else "the name is malformed"
        raise _Unreached(f"the name {host} is not known: {why}", "Check the name and this machine's DNS.") from error
    try:
        with socket.create_connection((host, port), timeout=endpoint.timeout_s) as connection:
            if tls:
                _talk_tls(connection, endpoint, scheme, host)
            elif tls is not None:
                _talk_plain(connection, scheme, host)
    except ConnectionRefusedError as error:
        raise _Unreached(f"nothing listens on {where}", "Start the server, or correct the port.") from error
    except TimeoutError as error:
        step = "Check routes and firewalls between here and there."
        raise _Unreached(f"{where} does not answer", step) from error
    except OSError as error:
        raise _Unreached(
            f"no connection to {where}: {in_words(error)}", "Check the network of this machine."
        ) from error
    return where


def _parts(address: str) -> tuple[str, str, int, bool | None]:
    if "://" not in address:
        parts = urlsplit(f"//{address}")
        if not parts.hostname or parts.port is None:
            raise ValueError(f"{address!r} is not host:port")
        return "", parts.hostname, parts.port, None
    parts = urlsplit(address)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"the scheme {parts.scheme!r} is none of {', '.join(_SCHEMES)}")
    if not parts.hostname:
        raise ValueError("the host is missing")
    port, tls = _SCHEMES[parts.scheme]
    return parts.scheme, parts.hostname, parts.port or port, tls


def _talk_tls(connection: socket.socket, endpoint: Endpoint, scheme: str, host: str) -> None:
    context = ssl.create_default_context(cafile=str(endpoint.ca_file) if endpoint.ca_file else None)
    try:
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        step = "Name the certificate authority, or correct the name."
        raise _Unreached(f"its certificate is not trusted: {error.verify_message}", step) from error
    except ssl.SSLError as error:
        if error.reason in _NOT_TLS:
            step = f"Use {scheme[:-1]}:// if that is intended, or turn TLS on at the server."
            raise _Unreached("it does not speak TLS", step) from error
        raise _Unreached(f"the TLS handshake failed: {error.reason or error}", _LOOK_AT_TLS) from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise _Unreached("it ended the TLS handshake; perhaps it does not speak TLS", _LOOK_AT_TLS) from error


def _talk_plain(connection: socket.socket, scheme: str, host: str) -> None:
    redis = scheme == "redis"
    request = "PING\r\n" if redis else f"HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n"
    connection.sendall(request.encode("ascii", "replace"))
    try:
        answer = connection.recv(_ANSWER_BYTES)
    except ConnectionResetError:
        answer = b""
    expected = (b"+", b"-") if redis else (b"HTTP/",)
    step = f"Use {scheme}s:// in the address."
    if answer.startswith(_TLS_RECORDS) or any(words in answer for words in _WORDS_OF_TLS):
        raise _Unreached("it expects TLS", step)
    if not answer:
        raise _Unreached("it closed the connection without an answer; perhaps it expects TLS", step)
    if not answer.startswith(expected):
        raise _Unreached(f"what answers is no {'Redis' if redis else 'web'} server", "Correct the address.")


def _shown(address: str) -> str:
    """The address without a password."""
    scheme, separator, rest = address.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def http_time(url: str, *, timeout_s: float = 5.0) -> datetime:
    """The clock at the other end of an HTTP endpoint, by the Date of any answer (RFC 9110 wants one). To the second.

    Raises:
        OSError: no answer, or none with a date.
    """
    try:
        date = httpx.head(url, timeout=timeout_s).headers.get("Date", "")
        return parsedate_to_datetime(date)
    except (httpx.HTTPError, ValueError) as error:
        raise OSError(f"{url} says no time ({type(error).__name__}).") from error

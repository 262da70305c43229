"""Where a vault is: `s3://bucket[/prefix]?endpoint=http://host:port&region=name` or `file:///absolute/path`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from common.errors import VaultUrlInvalid

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9._-]+")
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultLocation:
    """Never holds credentials: those come from the environment, a profile, or a lease."""

    scheme: str
    bucket: str = ""
    prefix: str = ""
    endpoint: str | None = None
    region: str = DEFAULT_REGION
    path: Path | None = None

    @classmethod
    def parse(cls, url: str) -> VaultLocation:
        """Raises VaultUrlInvalid, which names the part that is wrong."""
        parts = _split(url, url)
        if parts.username or parts.password:
            raise VaultUrlInvalid(f"The vault URL for {parts.hostname} holds credentials; they do not belong there.")
        if parts.scheme == "file":
            return _file(url, parts.netloc, unquote(parts.path), parts.query)
        if parts.scheme == "s3":
            return _s3(url, parts.netloc, parts.path.strip("/"), parts.query)
        raise VaultUrlInvalid(f"The vault URL {url!r} starts neither with s3:// nor with file://.")

    @property
    def url(self) -> str:
        """The canonical form; `parse` of it gives an equal location."""
        if self.scheme == "file":
            return f"file://{quote(str(self.path))}"
        query = [] if self.endpoint is None else [f"endpoint={quote(self.endpoint, safe=':/')}"]
        query.append(f"region={quote(self.region)}")
        prefix = f"/{self.prefix}" if self.prefix else ""
        return f"s3://{self.bucket}{prefix}?{'&'.join(query)}"


def _split(address: str, url: str) -> SplitResult:
    """Raises VaultUrlInvalid also for a port that is none."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise VaultUrlInvalid(f"The vault URL {url!r} cannot be read: {error}.") from error
    if port == 0:
        raise VaultUrlInvalid(f"The vault URL {url!r} has port 0, which no server has.")
    return parts


def _file(url: str, netloc: str, path: str, query: str) -> VaultLocation:
    if netloc not in {"", "localhost"} or query or not Path(path).is_absolute() or Path(path) == Path("/"):
        raise VaultUrlInvalid(f"The vault URL {url!r} does not name an absolute folder.")
    return VaultLocation(scheme="file", path=Path(path))


def _s3(url: str, bucket: str, prefix: str, query: str) -> VaultLocation:
    if not _BUCKET.fullmatch(bucket):
        raise VaultUrlInvalid(f"The vault URL {url!r} names no valid bucket ({bucket!r}).")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise VaultUrlInvalid(f"The vault URL {url!r} has a prefix that is not allowed ({prefix!r}).")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - {"endpoint", "region"})
    if unknown:
        raise VaultUrlInvalid(f"The vault URL {url!r} has an unknown option {unknown[0]!r}.")
    endpoint = options.get("endpoint")
    if endpoint is not None:
        end = _split(endpoint, url)
        if end.scheme not in {"http", "https"} or not end.hostname or end.username or end.path.strip("/"):
            raise VaultUrlInvalid(f"The vault URL {url!r} has an endpoint that is not http(s)://host:port.")
    return VaultLocation(
        scheme="s3", bucket=bucket, prefix=prefix, endpoint=endpoint, region=options.get("region") or DEFAULT_REGION
    )

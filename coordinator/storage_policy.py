"""What a host's storage credentials may do: the inline session policies, as documents.

V5: no host can read another host's points, and none can write under another's prefix. One job, one hour, prefixes of one
host. No list, no delete, no governance bypass, no retention right: those are absent,
and a session's rights are the intersection with the broker's, who has PUT and GET alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from common.errors import ConfigInvalid

MAX_POLICY = 2048
"""Characters AWS takes."""
MAX_NAMED_HOSTS = 20
"""A restore that needs packs of more hosts may read all packs, which are unreadable without keys."""


def backup_policy(*, bucket: str, prefix: str, host: str, point: str) -> str:
    """PUT below the host's own prefixes and of exactly one point; GET of what a backup re-reads."""
    own = [f"packs/{host}/*", f"index/{host}/*", f"lists/{host}/*", f"leases/{host}/*", f"points/{host}/{point}"]
    read = [f"packs/{host}/*", f"index/{host}/*", "lists/*", "moves/*", "damaged/*", f"points/{host}/{point}"]
    return _document(
        [
            _allow(["s3:PutObject"], bucket, prefix, own),
            _allow(["s3:GetObject", "s3:GetObjectVersion"], bucket, prefix, read),
        ]
    )


def restore_policy(*, bucket: str, prefix: str, source_host: str, point: str, pack_hosts: Sequence[str]) -> str:
    """GET of the one point, its lists, and the packs of the hosts it names."""
    hosts = sorted({source_host, *pack_hosts})
    packs = [f"packs/{host}/*" for host in hosts] if len(hosts) <= MAX_NAMED_HOSTS else ["packs/*"]
    read = [f"points/{source_host}/{point}", *(f"lists/{host}/*" for host in {source_host}), *packs]
    actions = ["s3:GetObject", "s3:GetObjectVersion"]
    document = _allow(actions, bucket, prefix, read)
    if len(_json([document])) > MAX_POLICY:
        document = _allow(actions, bucket, prefix, [*read[:2], "packs/*"])
    return _document([document])


def check_policy(*, bucket: str, prefix: str, host: str) -> str:
    """A check reads and writes nothing; it proves that the store answers this host."""
    return _document([_allow(["s3:GetObject"], bucket, prefix, [f"index/{host}/*"])])


def _allow(actions: list[str], bucket: str, prefix: str, keys: Iterable[str]) -> dict[str, object]:
    root = f"{bucket}/{prefix}/" if prefix else f"{bucket}/"
    return {"Effect": "Allow", "Action": actions, "Resource": [f"arn:aws:s3:::{root}{key}" for key in keys]}


def _json(statements: list[dict[str, object]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _document(statements: list[dict[str, object]]) -> str:
    text = _json(statements)
    if len(text) > MAX_POLICY:
        raise ConfigInvalid(
            f"The session policy would have {len(text)} characters; stores take {MAX_POLICY}.",
            next_step="Use a shorter prefix for the vault.",
        )
    return text

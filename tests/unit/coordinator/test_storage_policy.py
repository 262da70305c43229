"""Session policies: what a host's credentials may do, and that they stay under AWS's limit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.errors import ConfigInvalid
from common.ids import new_ulid, new_uuid
from coordinator.storage_policy import MAX_POLICY, backup_policy, check_policy, restore_policy

BUCKET = "b" * 63
HOST = new_uuid()
POINT = new_ulid()


def statements(policy: str) -> dict[str, list[str]]:
    """Action → resources without the ARN's head."""
    found: dict[str, list[str]] = {}
    for statement in json.loads(policy)["Statement"]:
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            found[action] = [each.removeprefix(f"arn:aws:s3:::{BUCKET}/") for each in statement["Resource"]]
    return found


def test_a_backup_writes_its_own_prefixes_and_one_point() -> None:
    policy = backup_policy(bucket=BUCKET, prefix="", host=HOST, point=POINT)
    assert len(policy) <= MAX_POLICY
    found = statements(policy)
    assert found == {
        "s3:PutObject": [
            f"packs/{HOST}/*", f"index/{HOST}/*", f"lists/{HOST}/*", f"leases/{HOST}/*", f"points/{HOST}/{POINT}"
        ],
        "s3:GetObject": (read := [
            f"packs/{HOST}/*", f"index/{HOST}/*", "lists/*", "moves/*", "damaged/*", f"points/{HOST}/{POINT}"
        ]),
        "s3:GetObjectVersion": read,
    }  # fmt: skip


def test_a_restore_only_reads_one_point_its_lists_and_the_packs_it_needs() -> None:
    other = new_uuid()
    found = statements(
        restore_policy(bucket=BUCKET, prefix="", source_host=HOST, point=POINT, pack_hosts=[HOST, other])
    )
    assert set(found) == {"s3:GetObject", "s3:GetObjectVersion"}
    assert set(found["s3:GetObject"]) == {
        f"points/{HOST}/{POINT}", f"lists/{HOST}/*", f"packs/{HOST}/*", f"packs/{other}/*"
    }  # fmt: skip


@pytest.mark.parametrize("hosts", [15, 20, 21, 500])
def test_a_restore_from_many_hosts_stays_under_the_limit(hosts: int) -> None:
    policy = restore_policy(
        bucket=BUCKET, prefix="", source_host=HOST, point=POINT, pack_hosts=[new_uuid() for _ in range(hosts)]
    )
    assert len(policy) <= MAX_POLICY
    assert "packs/*" in statements(policy)["s3:GetObject"]


def test_a_prefix_stands_before_every_key_and_a_long_one_is_refused() -> None:
    resources: list[Any] = json.loads(check_policy(bucket="b", prefix="a/b", host=HOST))["Statement"][0]["Resource"]
    assert resources == [f"arn:aws:s3:::b/a/b/index/{HOST}/*"]
    with pytest.raises(ConfigInvalid, match="2048"):
        backup_policy(bucket=BUCKET, prefix="p" * 200, host=HOST, point=POINT)

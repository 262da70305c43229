"""Pure rules of the agent: what a restore may do, which credentials hold, where settings come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.enrolment import QueueAccess
from common.contracts.jobs import Conflict, RestoreSpec
from common.errors import (
    ConfigInvalid,
    CredentialsAltered,
    CredentialsExpired,
    CredentialsForeign,
    GrantRefused,
)
from common.ids import new_ulid, new_uuid
from common.privatefiles import make_private_folder, write_private
from common.signing import EnvelopeType, b64, sign
from worker.credentials import check_credentials, read_credentials
from worker.queue import broker_url
from worker.restorejob import accept
from worker.settings import RestoreSettings, load_settings

HOST, OTHER, JOB = new_uuid(), new_uuid(), new_uuid()
SCRATCH = Path("/scratch")


def restore(**changes: Any) -> RestoreSpec:
    return RestoreSpec(**{"point": new_ulid(), "source_host": HOST, **changes})


def accepted(spec: RestoreSpec, **rules: bool) -> Path:
    return accept(spec, job_id=JOB, host_id=HOST, rules=RestoreSettings(**rules), scratch=SCRATCH)


@pytest.mark.parametrize("conflict", [Conflict.REFUSE, Conflict.COPY, Conflict.SKIP])
def test_own_points_into_the_scratch_folder_need_no_setting(conflict: Conflict) -> None:
    assert accepted(restore(conflict=conflict)) == SCRATCH / JOB


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"source_host": OTHER}, "allow_foreign_points"),
        ({"conflict": Conflict.OVERWRITE}, "allow_overwrite"),
        ({"destination": "/elsewhere"}, "allow_other_destinations"),
    ],
)
def test_anything_more_needs_its_own_setting_on_the_host(changes: dict[str, Any], setting: str) -> None:
    others = {"allow_foreign_points", "allow_overwrite", "allow_other_destinations"} - {setting}
    with pytest.raises(GrantRefused) as refused:
        accepted(restore(**changes), **dict.fromkeys(others, True))
    assert f"restore.{setting} = true" in refused.value.next_step
    accepted(restore(**changes), **{setting: True})


@pytest.mark.parametrize("destination", ["relative", "/a/../etc", ".."])
def test_a_destination_is_an_absolute_folder(destination: str) -> None:
    with pytest.raises(GrantRefused, match="not an absolute folder"):
        accepted(restore(destination=destination), allow_other_destinations=True)


def token(**changes: Any) -> str:
    key = Ed25519PrivateKey.generate()
    claims: dict[str, Any] = {
        "iss": "c",
        "jti": new_uuid(),
        "iat": 0,
        "exp": 1000,
        "coordinator_url": "http://c",
        "coordinator_key": b64(key.public_key().public_bytes_raw()),
        "vault": {"vault_id": new_uuid(), "name": "V", "url": "file:///v"},
        **changes,
    }
    return sign(claims, kind=EnvelopeType.CREDENTIALS, key=key)


def saved(folder: Path, content: str) -> Path:
    path = folder / "credentials"
    path.write_text(content)
    return path


def test_a_credentials_file_is_json_or_the_bare_token(tmp_path: Path) -> None:
    made = token()
    for content in (json.dumps({"stateward": "vault credentials", "token": made, "for": "people"}), made + "\n"):
        assert read_credentials(saved(tmp_path, content)).token == made


@pytest.mark.parametrize("content", ["", "{", token()[:-6] + "AAAAAA", token(coordinator_key=b64(b"k" * 32)), "a.b.c"])
def test_an_altered_credentials_file_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(CredentialsAltered):
        read_credentials(saved(tmp_path, content))


@pytest.mark.parametrize("content", ['{"token": "x"}', "[]", '{"stateward": "something else"}'])
def test_another_kind_of_file_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigInvalid):
        read_credentials(saved(tmp_path, content))
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_credentials(tmp_path / "absent")


def test_expired_and_foreign_credentials_are_told_apart(tmp_path: Path) -> None:
    claims = read_credentials(saved(tmp_path, token(host_pattern="web-*"))).claims
    check_credentials(claims, hostname="WEB-01", now=1200)
    with pytest.raises(CredentialsExpired):
        check_credentials(claims, hostname="web-01", now=1301)
    with pytest.raises(CredentialsForeign, match=r"web-\*"):
        check_credentials(claims, hostname="db-01", now=0)


def test_flags_stand_before_environment_and_environment_before_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.toml").write_text("start_spread_s = 1\nproxy = 'toml'\n[restore]\nallow_overwrite = true\n")
    monkeypatch.setenv("STATEWARD_PROXY", "environment")
    settings = load_settings(state=tmp_path, start_spread_s=3)
    assert (settings.start_spread_s, settings.proxy) == (3, "environment")
    assert settings.restore == RestoreSettings(allow_overwrite=True)
    monkeypatch.setenv("STATEWARD_STATE", str(tmp_path))
    monkeypatch.setenv("STATEWARD_RESTORE__ALLOW_FOREIGN_POINTS", "true")
    settings = load_settings()
    assert settings.start_spread_s == 1
    assert settings.restore == RestoreSettings(allow_overwrite=True, allow_foreign_points=True)
    assert settings.scratch_folder == tmp_path / "restores"


def test_a_bad_setting_is_named_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"start_spread_s cannot be -1"):
        load_settings(state=tmp_path, start_spread_s=-1)
    (tmp_path / "worker.toml").write_text("= nonsense")
    with pytest.raises(ConfigInvalid, match=r"worker\.toml"):
        load_settings(state=tmp_path)


def test_private_files_are_private_and_whole(tmp_path: Path) -> None:
    folder = make_private_folder(tmp_path / "state")
    assert folder.stat().st_mode & 0o777 == 0o700
    write_private(folder / "file", b"one")
    write_private(folder / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", b"two")]
    assert (folder / "file").stat().st_mode & 0o777 == 0o600


def test_the_broker_url_carries_any_password() -> None:
    access = QueueAccess(url="rediss://queue:6380/0", user="host.x", password="a/b:c@d#e")
    assert broker_url(access) == "rediss://host.x:a%2Fb%3Ac%40d%23e@queue:6380/0"
    assert "a/b" not in repr(access)

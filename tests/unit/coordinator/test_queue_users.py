"""The lines of the ACL file, as the design has them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from coordinator.keys import open_keys
from coordinator.queue_users import acl_lines, host_password_hashes, host_rules
from coordinator.settings import load_settings


def test_lines_before_the_coordinator_ever_ran(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path)
    default, publisher, admin = acl_lines(settings)
    keys = open_keys(settings.folder)
    hashed = {
        name: hashlib.sha256(keys.queue_password(name).reveal().encode()).hexdigest()
        for name in ("coord-pub", "acl-admin")
    }
    assert default == "user default off"
    assert publisher == (
        f"user coord-pub on #{hashed['coord-pub']} resetchannels -@all ~host.* +ping +client|setname +lpush +llen +del"
    )
    assert admin == (
        f"user acl-admin on #{hashed['acl-admin']} "
        "resetchannels -@all +ping +acl|setuser +acl|deluser +acl|load +acl|log +client|kill"
    )
    assert host_password_hashes(settings) == ()
    assert acl_lines(settings) == (default, publisher, admin), "the same at the next start"


def test_a_host_may_pop_its_own_list_alone(tmp_path: Path) -> None:
    keys = open_keys(tmp_path)
    rules = host_rules("h", keys.queue_password("host.h", public_key=b"k"))
    assert rules[2:] == ["resetchannels", "-@all", "~host.h", "+ping", "+client|setname", "+brpop"]
    assert keys.queue_password("host.h", public_key=b"k") != keys.queue_password("host.h", public_key=b"other")

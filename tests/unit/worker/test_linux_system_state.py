# ruff: noqa: PTH211
from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from worker_trees import HOST, paths

from worker.platform.api import SourceRoot
from worker.platform.linux import network
from worker.platform.linux.mounts import read_mounts
from worker.platform.linux.system_state import system_state
from worker.scan import scan

if TYPE_CHECKING:
    from pathlib import Path


def test_facts_of_this_machine_are_equal_twice_and_stay_untouched(tmp_path: Path) -> None:
    first = HOST.system_state(tmp_path / "one")
    again = HOST.system_state(tmp_path / "two")
    folders = [tmp_path / "one/system-state", tmp_path / "two/system-state"]
    contents = [{file.name: file.read_text() for file in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert first.warnings == again.warnings
    assert {"kernel.json", "mounts.json", "accounts.json", "network.json"} <= contents[0].keys()
    for text in contents[0].values():
        assert json.loads(text)
    before = {file.name: file.stat().st_mtime_ns for file in folders[0].iterdir()}
    HOST.system_state(tmp_path / "one")
    assert {file.name: file.stat().st_mtime_ns for file in folders[0].iterdir()} == before


def test_facts_that_are_gone_and_leftovers_leave_no_file(tmp_path: Path) -> None:
    (tmp_path / "system-state").mkdir()
    (tmp_path / "system-state/obsolete.json").write_text("{}")
    HOST.system_state(tmp_path)
    assert not (tmp_path / "system-state/obsolete.json").exists()


def test_this_machines_system_state_has_its_configuration(tmp_path: Path) -> None:
    state = HOST.system_state(tmp_path)
    roots = {root.tree: root.real for root in state.roots}
    assert roots[b"etc"] == b"/etc"
    assert roots[b".stateward/system-state"] == os.fsencode(tmp_path / "system-state")
    assert all(os.path.lexists(real) for real in roots.values())
    files = paths(list(scan(state.roots, files=HOST.files, warn=lambda *_: None)))
    assert b"etc/passwd" in files
    assert b".stateward/system-state/kernel.json" in files
    assert len(files) == len(set(files))


def test_a_made_up_machine(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in (
        "etc/fstab",
        "opt/app/etc/app.conf",
        "opt/other/bin/tool",
        "usr/local/etc/x",
        "var/lib/rpm/rpmdb.sqlite",
        "var/spool/cron/crontabs/root",
        "boot/vmlinuz-6.1.0",
        "boot/initrd.img-6.1.0",
        "boot/grub/grub.cfg",
        "boot/efi/EFI/debian/grub.cfg",
        "boot/efi/EFI/debian/shimx64.efi",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    os.symlink("../../var/lib/rpm", root / "usr/lib")
    state = system_state(tmp_path / "scratch", root)
    trees = [found.tree for found in state.roots]
    assert sorted(trees) == [
        b".stateward/system-state",
        b"boot/efi/EFI/debian/grub.cfg",
        b"boot/grub",
        b"etc",
        b"opt/app/etc",
        b"usr/local/etc",
        b"var/lib/rpm",
        b"var/spool/cron",
    ]


def test_explicit_packages_are_what_the_tool_says(tmp_path: Path) -> None:
    HOST.system_state(tmp_path)
    found = json.loads((tmp_path / "system-state/packages.json").read_text())
    if found["tool"] == "dpkg":
        listed = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\n"], capture_output=True, text=True, check=True)
        assert len(found["installed"]) == len(listed.stdout.splitlines())
    assert found["installed"] == sorted(found["installed"])


def test_mounts_of_this_machine() -> None:
    points = [mount.point for mount in read_mounts()]
    assert "/" in points
    assert "/proc" in points


def test_mount_points_with_spaces_and_nonsense(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(
        "27 1 254:3 / /with\\040blank rw,relatime shared:1 - ext4 /dev/vda rw\nnonsense\n"
    )
    [mount] = read_mounts(tmp_path)
    assert (mount.point, mount.kind, mount.device) == ("/with blank", "ext4", os.makedev(254, 3))
    assert read_mounts(tmp_path / "missing") == []


def test_routes_without_counters(tmp_path: Path) -> None:
    for name, text in {
        "proc/net/route": "Iface\tDest\neth0\t00000000\t010200C0\t0003\t0\t7\t100\t00000000\t0\t0\t0\n",
        "proc/net/if_inet6": "fd000000000000000000000000000002 02 40 00 80     eth0\n"
        "20010db8000000000000000000000009 02 40 00 00     eth0\n",
        "proc/net/fib_trie": "Main:\n        |-- 192.0.2.2\n           /32 host LOCAL\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert network.network(tmp_path) is None
    (tmp_path / "sys/class/net/eth0").mkdir(parents=True)
    (tmp_path / "sys/class/net/eth0/mtu").write_text("1500\n")
    (tmp_path / "sys/class/net/veth12").mkdir()
    found = network.network(tmp_path)
    assert isinstance(found, dict)
    assert found["routes_ipv4"] == [["eth0", "0.0.0.0/0", "192.0.2.1", "metric 100"]]
    assert found["ipv6"] == [["eth0", "fd00::2/64"]]
    assert found["ipv4"] == ["192.0.2.2"]
    assert list(found["interfaces"]) == ["eth0"]


def test_live_read_says_so(tmp_path: Path) -> None:
    from worker.platform.api import SnapshotMode

    root = SourceRoot(real=os.fsencode(tmp_path), tree=b"x")
    with HOST.volume_snapshot([root], SnapshotMode.PREFER) as snapshot:
        assert snapshot.consistency == "live read"
        assert snapshot.roots == (root,)

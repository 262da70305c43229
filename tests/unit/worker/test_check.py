from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from worker_trees import HOST, IS_ROOT

from common.errors import Cancelled, NoSpace, PrecheckFailed, SnapshotFailed
from worker.check import CheckPlan, check, checks, clock_skew, raise_on_failure
from worker.platform.api import CheckResult, Outcome, SnapshotMode
from worker.platform.fake import FACTS, FakeHost
from worker.platform.linux import packages, prechecks, programs

if TYPE_CHECKING:
    from pathlib import Path

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def fake(**fields: object) -> FakeHost:
    return FakeHost(inner=HOST, files=HOST.files, **fields)  # type: ignore[arg-type]


def result(name: str, outcome: Outcome) -> CheckResult:
    return CheckResult(name=name, outcome=outcome, reason=f"{name} said so.", next_step=f"Mend {name}.")


def test_this_machine_passes(tmp_path: Path) -> None:
    found = check(HOST, CheckPlan(folder=tmp_path / "not yet", needed_bytes=1, verify_timeout_s=0))
    assert [item.name for item in found] == ["supported_os", "rights", "pending_reboot", "free_space"]
    assert not [item for item in found if item.outcome is Outcome.FAIL]
    assert found[1].outcome is (Outcome.PASS if IS_ROOT else Outcome.WARN)
    assert all(item.reason.endswith(".") and item.seconds >= 0 for item in found)
    raise_on_failure(found)


def test_order_puts_the_slow_one_last(tmp_path: Path) -> None:
    plan = CheckPlan(folder=tmp_path, needed_bytes=1, remote_time=lambda: NOON, now=lambda: NOON, verify_timeout_s=1)
    assert [name for name, _ in checks(HOST, plan)] == [
        "supported_os",
        "rights",
        "pending_reboot",
        "free_space",
        "clock_skew",
        "package_verification",
    ]


def test_space(tmp_path: Path) -> None:
    found = check(fake(free=10), CheckPlan(folder=tmp_path, needed_bytes=11))
    assert found[-1].outcome is Outcome.FAIL
    with pytest.raises(NoSpace, match="10 bytes free and 11 are needed"):
        raise_on_failure(found)


def test_every_failure_is_named_and_the_first_one_says_what_to_do() -> None:
    raise_on_failure([result("a", Outcome.WARN), result("b", Outcome.PASS)])
    with pytest.raises(PrecheckFailed, match=r"c said so\. free_space said so\.") as raised:
        raise_on_failure([result("c", Outcome.FAIL), result("free_space", Outcome.FAIL)])
    assert raised.value.next_step == "Mend c."


@pytest.mark.parametrize(
    ("seconds", "outcome", "words"),
    [
        (0, Outcome.PASS, "near enough"),
        (61, Outcome.WARN, "61 s ahead"),
        (-299, Outcome.WARN, "299 s behind"),
        (301, Outcome.FAIL, "ahead"),
        (-86400, Outcome.FAIL, "86400 s behind"),
    ],
)
def test_clock_skew(seconds: int, outcome: Outcome, words: str) -> None:
    found = clock_skew(lambda: NOON + dt.timedelta(seconds=seconds), lambda: NOON)
    assert found.outcome is outcome
    assert words in found.reason


def test_clock_of_the_other_side_not_known() -> None:
    def fails() -> dt.datetime:
        raise OSError("no route")

    assert clock_skew(lambda: NOON, fails).outcome is Outcome.WARN


def test_cancel_between_checks(tmp_path: Path) -> None:
    answers = iter([False, True])
    with pytest.raises(Cancelled):
        check(HOST, CheckPlan(folder=tmp_path, needed_bytes=1, cancelled=lambda: next(answers)))


def test_a_check_that_breaks_is_a_warning(tmp_path: Path) -> None:
    class Broken(FakeHost):
        def free_bytes(self, folder: Path) -> int:
            raise OSError("the volume is gone")

    host = Broken(inner=HOST, files=HOST.files)
    found = check(host, CheckPlan(folder=tmp_path, needed_bytes=1))[-1]
    assert (found.name, found.outcome) == ("free_space", Outcome.WARN)
    assert "the volume is gone" in found.reason


def test_other_systems_are_not_supported() -> None:
    assert prechecks.supported_os(FACTS, "darwin").outcome is Outcome.FAIL
    assert prechecks.supported_os(FACTS, "linux").outcome is Outcome.PASS


def test_pending_reboot(tmp_path: Path) -> None:
    def outcome() -> tuple[Outcome, str]:
        found = prechecks.pending_reboot("6.1.0-13-amd64", tmp_path)
        return found.outcome, found.reason

    assert outcome() == (Outcome.PASS, "No kernel is installed here, so none waits.")
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1.0-9-amd64").touch()
    (tmp_path / "boot/vmlinuz-6.1.0-13-amd64").touch()
    (tmp_path / "lib/modules/6.12.0-1-amd64").mkdir(parents=True)  # left behind: no list of modules
    assert outcome() == (Outcome.PASS, "Nothing waits for a reboot.")
    (tmp_path / "lib/modules/6.12.0-1-amd64/modules.dep").touch()
    assert outcome() == (Outcome.WARN, "Kernel 6.12.0-1-amd64 is installed and 6.1.0-13-amd64 is running.")
    (tmp_path / ".dockerenv").touch()
    assert outcome()[0] is Outcome.PASS
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    (tmp_path / "run/reboot-required.pkgs").write_text("libc6\nlinux-image\nlibc6\n")
    assert outcome() == (Outcome.WARN, "The system says that a reboot is required by libc6, linux-image.")


DPKG = """\
??5?????? c /etc/crontab
missing   c /etc/gone.conf
missing     /usr/share/doc/bash/README
missing     /usr/share/man/man1/ls.1.gz
??5??????   /usr/bin/name with blank
missing     /usr/lib/x.so
dpkg: something else
"""
RPM = """\
S.5....T.  c /etc/issue
.......T.    /usr/bin/only-touched
.M.......  g /var/log/ghost
S.5....T.    /usr/sbin/changed
missing   d /usr/share/info/x
Unsatisfied dependencies for x
"""


def test_lines_of_dpkg_and_rpm() -> None:
    found = packages.read(DPKG)
    assert found.changed == ("/usr/bin/name with blank", "/usr/lib/x.so")
    assert (found.configuration, found.documentation) == (2, 2)
    found = packages.read(RPM)
    assert found.changed == ("/usr/sbin/changed",)
    assert (found.configuration, found.documentation) == (2, 1)


def test_verdicts_of_the_verification() -> None:
    assert packages.judge(packages.read(""), "t").outcome is Outcome.PASS
    conffiles = packages.judge(packages.read("??5?????? c /etc/crontab\n"), "t")
    assert (conffiles.outcome, "1 changed configuration files" in conffiles.reason) == (Outcome.PASS, True)
    many = packages.judge(packages.read("".join(f"??5??????   /usr/bin/{n:02}\n" for n in range(30))), "t")
    assert many.outcome is Outcome.WARN
    assert "/usr/bin/09 and 20 more" in many.reason


def never() -> bool:
    return False


def test_verification_without_a_tool_and_without_time() -> None:
    found = packages.verification(timeout_s=1, cancelled=never, find=lambda _: None)
    assert (found.outcome, found.reason[:14]) == (Outcome.WARN, "Not applicable")
    found = packages.verification(timeout_s=0.01, cancelled=never)
    assert found.outcome is Outcome.WARN
    assert "did not end within 0.01 s" in found.reason


def test_verification_is_cancelled() -> None:
    with pytest.raises(Cancelled):
        packages.verification(timeout_s=60, cancelled=lambda: True)


def test_programs_end_in_time_and_leave_nothing() -> None:
    ran = programs.run(("sh", "-c", "echo before; exec sleep 60"), timeout_s=0.3)
    assert (ran.timed_out, ran.output) == (True, "before\n")
    ran = programs.run(("sh", "-c", "echo $LC_ALL; exit 3"), timeout_s=10)
    assert (ran.timed_out, ran.output, ran.exit_code) == (False, "C.UTF-8\n", 3)


def test_rights_come_from_capabilities(tmp_path: Path) -> None:
    from worker.platform.linux.host import may_read_everything

    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000000004\n")
    assert may_read_everything(status)
    status.write_text("CapEff:\t0000000000000000\n")
    assert not may_read_everything(status)
    assert may_read_everything(tmp_path / "missing") is IS_ROOT


def test_fake_host_follows_its_script(tmp_path: Path) -> None:
    host = fake(script="ok timeout ok", consistency="VSS")
    for works in (True, False, True):
        if works:
            with host.volume_snapshot([], SnapshotMode.REQUIRE) as snapshot:
                assert (snapshot.consistency, host.snapshots_open) == ("VSS", 1)
        else:
            with pytest.raises(SnapshotFailed, match="timeout"), host.volume_snapshot([], SnapshotMode.REQUIRE):
                pass
        assert host.snapshots_open == 0
    with pytest.raises(SnapshotFailed), HOST.volume_snapshot([], SnapshotMode.REQUIRE):
        pass

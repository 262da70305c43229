"""Enrolment survives a crash before and after every one of its steps, and a reply lost at every call."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agent_rig import Rig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.checkin import HostReport
from common.contracts.enrolment import CredentialsClaims
from common.errors import Conflicting, CoordinatorUnavailable, CredentialsUsedUp, Refused, WrongPassphrase
from common.secret import Secret
from common.signing import unb64
from common.vault.keys import unwrap
from worker import enrol
from worker.client import CoordinatorClient, make_http
from worker.enrol import EnrolDeps, Pins, confirm, register
from worker.identity import find_identity, load_identity
from worker.proofs import Prover, new_instance

PASSPHRASE = Secret("correct horse battery staple")


class Crash(BaseException):
    """As a kill: nothing catches it."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


class Machine:
    def __init__(self, folder: Path, rig: Rig) -> None:
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        self.rig = rig
        self.pinned: list[Pins] = []
        self.file = folder / "credentials"
        self.save(rig.credentials_token())

    def save(self, token: str) -> None:
        self.token = token
        self.file.write_text(json.dumps({"stateward": "vault credentials", "token": token}))

    def deps(self) -> EnrolDeps:
        def client(claims: CredentialsClaims, host_id: str, key: Ed25519PrivateKey) -> CoordinatorClient:
            prover = Prover(host_id=host_id, key=key, instance=new_instance(), clock=time.time)
            return CoordinatorClient(
                url=claims.coordinator_url,
                http=make_http(ca_pem="", proxy=""),
                prover=prover,
                sleep=lambda _: None,
                random=lambda: 0.5,
            )

        return EnrolDeps(
            state=self.state,
            client=client,
            pin=self.pinned.append,
            report=lambda: HostReport(hostname="h", os_name="L", os_version="1", os_build="1", agent_version="1"),
            now=lambda: datetime.now(UTC),
        )

    def register(self, passphrase: Secret[str] = PASSPHRASE, **options: Any) -> enrol.Registration:
        return register(self.file, passphrase, self.deps(), **options)

    def check_registered(self) -> None:
        """Everything fits together, whatever happened before."""
        identity = load_identity(self.state)
        assert list(self.rig.tokens_used) == [identity.token_id]
        assert list(self.rig.host_keys) == [identity.host_id]
        assert {request.wrapping for request in self.rig.keys} == {self.rig.keys[0].wrapping}
        keys = unwrap(
            unb64(self.rig.keys[0].wrapping), PASSPHRASE, vault_id=identity.vault.vault_id, host_id=identity.host_id
        )
        assert keys.fingerprint == identity.recovery_fingerprint
        assert keys.signing == Secret(unb64(identity.signing_key))
        assert {pins.recovery_public for pins in self.pinned} == {keys.recovery_public}
        assert self.pinned[-1].host_secret == keys.host_secret
        assert not self.file.exists()
        assert not (self.state / "enrolment.json").exists()
        seed = keys.recovery_seed.reveal()
        assert not [path for path in self.state.rglob("*") if path.is_file() and seed in path.read_bytes()]


@pytest.fixture
def machine(tmp_path: Path, rig: Rig) -> Machine:
    return Machine(tmp_path, rig)


STEPS = ("write_private", "remove", "save_identity")


def crash_at(nth: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Lets the nth write of the enrolment end the process, before or after it took effect."""
    counter = itertools.count(1)

    def step(original: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            crash = next(counter) == nth
            if crash and not after:
                raise Crash
            original(*arguments)
            if crash:
                raise Crash

        return run

    for name in STEPS:
        monkeypatch.setattr(enrol, name, step(getattr(enrol, name)))


def crashed(machine: Machine, nth: int, *, after: bool) -> bool:
    with pytest.MonkeyPatch.context() as monkeypatch:
        crash_at(nth, monkeypatch, after=after)
        try:
            machine.register()
        except Crash:
            return True
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_around_every_step_on_disk(tmp_path: Path, *, after: bool) -> None:
    for nth in itertools.count(1):
        with contextlib.closing(Rig()) as rig:
            machine = Machine(tmp_path / str(nth), rig)
            ended = not crashed(machine, nth, after=after)
            machine.register()
            machine.check_registered()
        if ended:
            assert nth > 5
            return


@pytest.mark.parametrize("path", ["/v1/enrol", "/v1/enrol/keys"])
@pytest.mark.parametrize("how", ["drop", "lose"])
def test_a_coordinator_that_goes_away_costs_a_second_run(machine: Machine, rig: Rig, path: str, how: str) -> None:
    rig.trouble = lambda asked: how if asked == path else None
    with pytest.raises(CoordinatorUnavailable):
        machine.register()
    assert find_identity(machine.state) is None
    rig.trouble = lambda _: None
    machine.register()
    machine.check_registered()


def test_another_passphrase_after_an_interruption_is_refused(machine: Machine, rig: Rig) -> None:
    rig.trouble = lambda asked: "lose" if asked == "/v1/enrol/keys" else None
    with pytest.raises(CoordinatorUnavailable):
        machine.register()
    rig.trouble = lambda _: None
    with pytest.raises(WrongPassphrase, match="another passphrase"):
        machine.register(Secret("another passphrase entirely"))
    machine.register()
    machine.check_registered()


def test_refused_credentials_leave_the_way_free_for_others(machine: Machine, rig: Rig) -> None:
    jti = "12345678-1234-4234-8234-123456789012"
    rig.tokens_used[jti] = "somebody else"
    machine.save(rig.credentials_token(jti=jti))
    with pytest.raises(CredentialsUsedUp):
        machine.register()
    del rig.tokens_used[jti]
    machine.save(rig.credentials_token())
    machine.register()
    machine.check_registered()


def test_a_registered_host_does_not_take_other_credentials(machine: Machine, rig: Rig) -> None:
    machine.register()
    machine.save(rig.credentials_token())
    with pytest.raises(Conflicting):
        machine.register()
    assert machine.file.exists()


def test_the_host_is_incomplete_until_the_right_fingerprint_is_confirmed(machine: Machine, rig: Rig) -> None:
    with pytest.raises(Refused, match="is not that of this host's key"):
        machine.register(key_saved="0000-0000")
    told = machine.register()
    assert told.state == "incomplete"
    assert [request.key_saved for request in rig.keys] == [None]
    assert confirm(f" {told.fingerprint.upper()}\n", machine.deps()).state == "active"
    assert rig.keys[-1].key_saved == told.fingerprint
    assert confirm(told.fingerprint, machine.deps()).state == "active"
    assert len(rig.keys) == 2
    assert sorted(path.name for path in machine.state.iterdir()) == ["identity.json"]
    machine.check_registered()

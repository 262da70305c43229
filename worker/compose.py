"""The composition root of a fleet host's processes: real clocks, HTTP, platform and work, put together from settings."""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common import __version__
from common.contracts.checkin import HostReport
from common.contracts.enrolment import CredentialsClaims
from common.privatefiles import make_private_folder
from worker.client import CoordinatorClient, make_http
from worker.enrol import EnrolDeps
from worker.identity import Identity, load_identity
from worker.jobprocess import spawner
from worker.jobrun import JobDeps, Works
from worker.journal import Journal
from worker.platform import this_host
from worker.proofs import Prover, new_instance
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.agent import Agent

JOURNAL_FILE = "agent.db"
AGENT_LOCK = "agent.lock"
JOB_LOCK = "job.lock"

PROGRAM = (sys.executable, "-m", "worker")
"""This very program, started from the folder that holds its packages."""


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def open_journal(settings: WorkerSettings) -> Journal:
    make_private_folder(settings.state)
    return Journal(settings.state / JOURNAL_FILE, time.time)


def host_report() -> Callable[[], HostReport]:
    """Nothing in it changes while the machine runs, so it is asked once."""
    host = this_host()

    @functools.cache
    def report() -> HostReport:
        facts = host.facts()
        return HostReport(
            hostname=facts.hostname,
            os_name=facts.os_name,
            os_version=facts.os_version,
            os_build=facts.os_build,
            kernel=facts.kernel,
            architecture=facts.architecture,
            agent_version=__version__,
            elevated=facts.elevated,
        )

    return report


def client_for(
    identity: Identity, *, instance: str, settings: WorkerSettings, sleep: Callable[[float], object]
) -> CoordinatorClient:
    return _client(
        url=identity.coordinator_url,
        ca_pem=identity.ca_pem,
        proxy=settings.proxy or identity.proxy,
        prover=Prover(host_id=identity.host_id, key=identity.key(), instance=instance, clock=time.time),
        sleep=sleep,
    )


def enrol_deps(settings: WorkerSettings) -> EnrolDeps:
    from worker.fleetpins import pin_enrolment  # noqa: PLC0415  the vault's code loads only where it is needed

    make_private_folder(settings.state)

    def client(claims: CredentialsClaims, host_id: str, key: Ed25519PrivateKey) -> CoordinatorClient:
        return _client(
            url=claims.coordinator_url,
            ca_pem=claims.ca_pem,
            proxy=settings.proxy,
            prover=Prover(host_id=host_id, key=key, instance=new_instance(), clock=time.time),
            sleep=threading.Event().wait,
        )

    return EnrolDeps(
        state=settings.state,
        client=client,
        pin=functools.partial(pin_enrolment, settings.state),
        report=host_report(),
        now=now,
        proxy=settings.proxy,
    )


def make_agent(settings: WorkerSettings, journal: Journal) -> Agent:
    from worker.agent import Agent, AgentDeps  # noqa: PLC0415  Celery loads in the agent alone

    identity = load_identity(settings.state)
    napping = threading.Event()  # nothing sets it: the agent's calls are tried once
    return Agent(
        AgentDeps(
            identity=identity,
            journal=journal,
            client=client_for(identity, instance=new_instance(), settings=settings, sleep=napping.wait),
            spawn=spawner(PROGRAM, settings.state, Path(__file__).resolve().parents[1]),
            report=host_report(),
            state=settings.state,
            start_spread_s=settings.start_spread_s,
            clock=time.time,
            monotonic=time.monotonic,
            random=random.random,
            die=os._exit,
        )
    )


def job_deps(
    settings: WorkerSettings, journal: Journal, *, instance: str, stopping: threading.Event, works: Works
) -> JobDeps:
    identity = load_identity(settings.state)
    return JobDeps(
        identity=identity,
        journal=journal,
        client=client_for(identity, instance=instance, settings=settings, sleep=stopping.wait),
        works=works,
        rules=settings.restore,
        scratch=settings.scratch_folder,
        stopping=stopping,
        now=now,
        monotonic=time.monotonic,
    )


def _client(
    *, url: str, ca_pem: str, proxy: str, prover: Prover, sleep: Callable[[float], object]
) -> CoordinatorClient:
    return CoordinatorClient(
        url=url, http=make_http(ca_pem=ca_pem, proxy=proxy), prover=prover, sleep=sleep, random=random.random
    )

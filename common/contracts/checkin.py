"""`POST /v1/checkin`: what a host has to say, and what the coordinator has for it. Every call may be repeated."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.contracts.base import Contract, Moment, Sentence, UlidText, UuidText
from common.contracts.jobs import JobEvent


class HostReport(Contract):
    """Facts about the host, sent when they changed and once a day."""

    hostname: str
    os_name: str
    os_version: str
    os_build: str
    kernel: str = ""
    architecture: str = ""
    agent_version: str
    elevated: bool = False


class CheckinRequest(Contract):
    events: Annotated[tuple[JobEvent, ...], Field(max_length=100)] = ()
    report: HostReport | None = None
    queue_reachable: bool = True
    running: tuple[UuidText, ...] = ()
    """Jobs whose child process lives."""


class RejectedEvent(Contract):
    id: UlidText
    reason: Sentence


class CheckinReply(Contract):
    accepted: tuple[UlidText, ...] = ()
    rejected: tuple[RejectedEvent, ...] = ()
    jobs: tuple[str, ...] = ()
    """Signed job messages that wait for this host, whether the queue has delivered them or not."""
    cancels: tuple[UuidText, ...] = ()
    next_checkin_s: float = 300.0
    server_time: Moment

"""What operators and scripts send to and get from `/v1`; list answers come in pages with a cursor."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.contracts.base import Base64Text, Contract, Moment, Name, UlidText, UuidText
from common.contracts.jobs import JobKind, JobReport, JobSpec, Progress
from common.jobstates import JobState


class VaultCreate(Contract):
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{1,49}$")]
    region: str = ""


class VaultView(Contract):
    id: UuidText
    name: str
    url: str
    region: str
    state: str
    created: Moment


class CredentialsCreate(Contract):
    labels: dict[str, str] = Field(default_factory=dict)
    region: str = ""
    host_pattern: str = "*"
    uses: Annotated[int, Field(ge=1, le=10_000)] = 1
    valid_s: Annotated[int, Field(ge=60, le=864_000)] = 864_000


class CredentialsView(Contract):
    token: str
    expires: Moment


class HostView(Contract):
    id: UuidText
    name: str
    vault_id: UuidText
    state: str
    """incomplete, active, paused or removed."""
    labels: dict[str, str]
    region: str
    os: str
    agent_version: str
    last_seen: Moment | None
    last_point: Moment | None
    last_result: str


class JobCreate(Contract):
    host: str
    """Id or name."""
    spec: JobSpec
    retain_until: Moment | None = None
    idempotency_key: Annotated[str, Field(max_length=200)] = ""


class JobView(Contract):
    id: UuidText
    kind: JobKind
    host_id: UuidText
    host_name: str
    state: JobState
    attempt: int
    progress: Progress | None
    report: JobReport | None
    point: UlidText | None
    spec: JobSpec
    code: str
    reason: str
    next_step: str
    created: Moment
    started: Moment | None
    ended: Moment | None


class GrantView(Contract):
    """What the person's CLI needs to make a grant."""

    job_id: UuidText
    state: JobState
    target_host: UuidText
    target_host_key: Base64Text
    source_host: UuidText
    point: UlidText
    destination: str | None
    conflict: str
    vault_id: UuidText
    public_key: Base64Text | None
    """The target's ephemeral key; None until the host asked for the grant."""
    signature: Base64Text | None
    point_object: Base64Text
    wrappings: dict[str, Base64Text]
    """Object key → wrapping of the source host's keys."""
    host_objects: dict[str, Base64Text]


class GrantCreate(Contract):
    grant: Base64Text


class PointView(Contract):
    point: UlidText
    host_id: UuidText
    host_name: str
    vault_id: UuidText
    seq: int
    created: Moment
    received: Moment
    verdict: str
    logical_bytes: int
    new_bytes: int
    stored_bytes: int
    files: int
    warnings: int
    consistency: str


class Page(Contract):
    next_cursor: str | None = None


class JobPage(Page):
    items: tuple[JobView, ...]


class HostPage(Page):
    items: tuple[HostView, ...]


class VaultPage(Page):
    items: tuple[VaultView, ...]


class PointPage(Page):
    items: tuple[PointView, ...]


class Problem(Contract):
    """RFC 9457 problem details, with the stable code and the next step."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    next_step: str


class HealthView(Contract):
    status: Name
    version: str
    epoch: int
    server_time: Moment

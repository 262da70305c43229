"""Every error a person can meet, as one tree.

::

    StatewardError
    ├─ UsageError            2  the setting and its value are wrong
    │  ├─ VaultUrlInvalid · BucketMissing · NotInitialised · PassphraseUnfit
    │  ├─ TargetNotEmpty · TargetNotWritable · PortInUse · PointNotFound · HostNotFound
    │  ├─ VaultNotFound · JobNotFound · RequestInvalid · RequestTooLarge
    │  └─ ConfigInvalid
    ├─ PrecheckFailed        4  nothing was read
    │  └─ NoSpace
    ├─ SnapshotFailed        5  nothing was uploaded
    ├─ Unreachable           6  the store, the queue or the coordinator
    │  ├─ StoreUnavailable · TlsExpected
    │  ├─ CoordinatorUnavailable · QueueUnavailable · ServiceFailed
    ├─ Refused               7  keys, rights, immutability
    │  ├─ WrongPassphrase · StoreDenied · NotTrusted · FormatTooNew · AlreadyExists
    │  ├─ Credentials{Expired,Foreign,Altered,UsedUp} · GrantRefused · LeaseLost
    │  ├─ ClockSkewed · NotAuthenticated · JobOver · MessageExpired · Conflicting
    ├─ Damaged               8  data is missing or does not match
    ├─ Cancelled             9
    └─ Busy                  10
       └─ NotYet

A class says what happened (`code`, `number`), what to do (`next_step`), whether trying the same again can help
(`retryable`) and with which exit code a program ends. The message is one sentence about this case. Only `__main__`
modules exit, one handler maps to HTTP, one function (`is_retryable`) decides about retries.
`docs/troubleshooting.md` has an entry for each code; a test keeps it complete.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a program ends; the table of `--help`, kept for scripts."""

    DONE = 0
    BUG = 1
    USAGE = 2
    WARNINGS = 3
    PRECHECK = 4
    SNAPSHOT = 5
    UNREACHABLE = 6
    REFUSED = 7
    DAMAGED = 8
    CANCELLED = 9
    BUSY = 10

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.BUG: "unexpected error (a bug): the message says where the report is",
    ExitCode.USAGE: "wrong usage or configuration: names the setting and the value",
    ExitCode.WARNINGS: "done with warnings: the point exists, some files could not be read",
    ExitCode.PRECHECK: "a precheck failed: nothing was read",
    ExitCode.SNAPSHOT: "no consistent snapshot: nothing was uploaded",
    ExitCode.UNREACHABLE: "the store, the queue or the coordinator cannot be reached, or keeps failing",
    ExitCode.REFUSED: "refused: wrong passphrase, expired or foreign credentials, missing right, immutability",
    ExitCode.DAMAGED: "damaged or missing data: what is affected is listed, everything else was delivered",
    ExitCode.CANCELLED: "cancelled",
    ExitCode.BUSY: "busy: another run holds this host or this vault operation",
}


class StatewardError(Exception):
    """The root. `message` is one sentence without a stack trace; it never holds a secret."""

    code: ClassVar[str] = "internal"
    number: ClassVar[int] = 1
    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    retryable: ClassVar[bool] = False
    default_next_step: ClassVar[str] = "Run the command again with --debug and send the report to the maintainers."

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.default_next_step

    @property
    def page(self) -> str:
        """The entry of this code in the troubleshooting page."""
        return f"docs/troubleshooting.md#{self.code}"


# 2 ── wrong usage or configuration ──────────────────────────────────────────────────────────────────────────────────


class UsageError(StatewardError):
    code = "usage"
    number = 20
    exit_code = ExitCode.USAGE
    default_next_step = "See the command's --help."


class ConfigInvalid(UsageError):
    code = "config_invalid"
    number = 21
    default_next_step = "Correct the named setting."


class VaultUrlInvalid(UsageError):
    code = "vault_url_invalid"
    number = 22
    default_next_step = "Give s3://bucket[/prefix]?endpoint=http://host:port&region=name, or file:///absolute/path."


class BucketMissing(UsageError):
    code = "bucket_missing"
    number = 23
    default_next_step = "Check the bucket's name and the endpoint; a bucket is made with the store's own tools."


class NotInitialised(UsageError):
    code = "not_initialised"
    number = 24
    default_next_step = "Run `stateward-worker init --vault URL --passphrase-file F` on this host first."


class PassphraseUnfit(UsageError):
    code = "passphrase_unfit"
    number = 25
    default_next_step = (
        "Use at least 16 printable ASCII characters; `stateward-worker passphrase generate` makes such a passphrase."
    )


class TargetNotEmpty(UsageError):
    code = "target_not_empty"
    number = 26
    default_next_step = "Give an empty or new folder with --to, or say --conflict copy, overwrite or skip."


class TargetNotWritable(UsageError):
    code = "target_not_writable"
    number = 27
    default_next_step = "Give a folder with --to in which this user may write."


class PortInUse(UsageError):
    code = "port_in_use"
    number = 28
    default_next_step = "Leave the port option away to get a free one, or end the program that uses it."


class PointNotFound(UsageError):
    code = "point_not_found"
    number = 29
    default_next_step = "List the recovery points with `stateward-worker points --vault URL`."


class HostNotFound(UsageError):
    code = "host_not_found"
    number = 30
    default_next_step = "List the hosts with `stateward host list`, or name one with --host."


class VaultNotFound(UsageError):
    code = "vault_not_found"
    number = 31
    default_next_step = "List the vaults with `stateward vault list`."


class JobNotFound(UsageError):
    code = "job_not_found"
    number = 32
    default_next_step = "List the jobs with `stateward job list`."


class RequestInvalid(UsageError):
    """A message to the coordinator does not have the agreed form."""

    code = "request_invalid"
    number = 33
    default_next_step = "Correct the named field; the forms of all messages stand in the API's /openapi.json."


class RequestTooLarge(UsageError):
    code = "request_too_large"
    number = 34
    default_next_step = "Send less at a time; the limit stands in the message."


# 4 ── prechecks ─────────────────────────────────────────────────────────────────────────────────────────────────────


class PrecheckFailed(StatewardError):
    code = "precheck_failed"
    number = 40
    exit_code = ExitCode.PRECHECK
    retryable = True
    default_next_step = "Run `stateward-worker check` on the host and follow what it says."


class NoSpace(PrecheckFailed):
    code = "no_space"
    number = 41
    default_next_step = "Free space on the named volume, or name another folder."


# 5 ── snapshot ──────────────────────────────────────────────────────────────────────────────────────────────────────


class SnapshotFailed(StatewardError):
    code = "snapshot_failed"
    number = 50
    exit_code = ExitCode.SNAPSHOT
    retryable = True
    default_next_step = "See the reason; the next attempt takes a new snapshot."


# 6 ── store, queue, coordinator ─────────────────────────────────────────────────────────────────────────────────────


class Unreachable(StatewardError):
    code = "unreachable"
    number = 60
    exit_code = ExitCode.UNREACHABLE
    retryable = True
    default_next_step = "Check that the named endpoint runs and can be reached from here."


class StoreUnavailable(Unreachable):
    code = "store_unavailable"
    number = 61


class TlsExpected(Unreachable):
    code = "tls_expected"
    number = 62
    retryable = False
    default_next_step = "Change http:// to https:// (or the reverse) in the endpoint."


class CoordinatorUnavailable(Unreachable):
    code = "coordinator_unavailable"
    number = 63


class QueueUnavailable(Unreachable):
    code = "queue_unavailable"
    number = 64


class ServiceFailed(Unreachable):
    """A server that we started ourselves did not start or does not stay up."""

    code = "service_failed"
    number = 65
    default_next_step = "Read the end of the named log."


# 7 ── refused ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Refused(StatewardError):
    code = "refused"
    number = 70
    exit_code = ExitCode.REFUSED
    default_next_step = "Ask an administrator for the right that is missing."


class WrongPassphrase(Refused):
    code = "wrong_passphrase"
    number = 71
    default_next_step = (
        "Compare the key id shown with the one noted when the host was enrolled, and try the passphrase saved for it."
    )


class StoreDenied(Refused):
    code = "store_denied"
    number = 72
    default_next_step = "Check the access key, its secret and its rights on the bucket."


class NotTrusted(Refused):
    """A signature, a pinned value or a chain does not hold: somebody else may have written this."""

    code = "not_trusted"
    number = 73
    default_next_step = (
        "Do not go on. Compare the fingerprints with those noted at enrolment; somebody may have written to the vault."
    )


class FormatTooNew(Refused):
    code = "format_too_new"
    number = 74
    default_next_step = "Install a newer stateward, or use the one that wrote this vault."


class AlreadyExists(Refused):
    """The store holds an object under this key (V1: a key is written once)."""

    code = "already_exists"
    number = 75
    default_next_step = "Nothing needs to be done when the same job wrote it; else another writer used this key."


class CredentialsExpired(Refused):
    code = "credentials_expired"
    number = 76
    default_next_step = "Make a new vault credentials file with `stateward vault credentials`."


class CredentialsForeign(Refused):
    code = "credentials_foreign"
    number = 77
    default_next_step = "Use a vault credentials file that this coordinator made for this host."


class CredentialsAltered(Refused):
    code = "credentials_altered"
    number = 78
    default_next_step = "Copy the vault credentials file again; it must not be edited."


class CredentialsUsedUp(Refused):
    code = "credentials_used_up"
    number = 79
    default_next_step = "Make a new vault credentials file with `stateward vault credentials`."


class GrantRefused(Refused):
    code = "grant_refused"
    number = 80
    default_next_step = "Change the restore settings on the host itself if this restore is wanted."


class LeaseLost(Refused):
    """The job is leased to somebody else, was cancelled, or is over: this attempt may not commit."""

    code = "lease_lost"
    number = 81
    default_next_step = "Nothing needs to be done: the coordinator starts another attempt where one is due."


class ClockSkewed(Refused):
    """The proof of a request is more than five minutes off; the answer carries the coordinator's time."""

    code = "clock_skewed"
    number = 82
    retryable = True
    default_next_step = "Set this machine's clock; the agent tries again with the coordinator's time."


class NotAuthenticated(Refused):
    code = "not_authenticated"
    number = 83
    default_next_step = "Give a valid token with --token, or the folder of an embedded coordinator with --data."


class JobOver(Refused):
    """The job's state does not allow what was asked."""

    code = "job_over"
    number = 84
    default_next_step = "See the job's state with `stateward job show`, and start a new job if one is wanted."


class MessageExpired(Refused):
    """A signed job was shown for the first time after its start window."""

    code = "message_expired"
    number = 85
    default_next_step = "Nothing needs to be done on the host; the coordinator records the run as missed."


class Conflicting(Refused):
    """Something of this name or identity is there already, and is another one."""

    code = "conflicting"
    number = 86
    default_next_step = "Choose another name, or remove the other one first."


# 8, 9, 10 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Damaged(StatewardError):
    code = "damaged"
    number = 90
    exit_code = ExitCode.DAMAGED
    default_next_step = (
        "Restore the named files from another recovery point, and look at the store with `stateward-worker verify`."
    )


class Cancelled(StatewardError):
    code = "cancelled"
    number = 100
    exit_code = ExitCode.CANCELLED
    default_next_step = "Start it again when it is wanted; what was uploaded is used again."


class Busy(StatewardError):
    code = "busy"
    number = 110
    exit_code = ExitCode.BUSY
    retryable = True
    default_next_step = "Wait for the other run to end."


class NotYet(Busy):
    """The coordinator lets no more in at present (429), and says when to come again."""

    code = "not_yet"
    number = 111
    default_next_step = "Nothing needs to be done: the agent tries again by itself."

    def __init__(self, message: str, *, next_step: str | None = None, retry_after_s: float = 30.0) -> None:
        super().__init__(message, next_step=next_step)
        self.retry_after_s = retry_after_s


def is_retryable(error: BaseException) -> bool:
    """Whether trying the very same call again may succeed. The only place that decides it."""
    return isinstance(error, StatewardError) and error.retryable


def error_classes() -> list[type[StatewardError]]:
    """All classes of the tree, in order of their numbers (for the documentation and its test)."""
    found: list[type[StatewardError]] = []
    waiting: list[type[StatewardError]] = [StatewardError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return sorted(set(found), key=lambda cls: cls.number)

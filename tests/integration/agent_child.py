"""The job process of the agent's tests: the real `run_job`, with work that the test scripts through a file.

`<state>/script` says what the work does: `ok`, `wait` (until told to stop), `crash-once`, `store-down-once`, `fail`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
import time
from pathlib import Path

from common.contracts.jobs import BackupSpec, CheckSpec, JobReport, Lease, Progress, RestoreSpec, Stage
from common.errors import Cancelled, PrecheckFailed, StoreUnavailable
from common.telemetry import configure_logging
from worker import compose, jobrun
from worker.jobprocess import watch_pipe
from worker.onlyone import only_one
from worker.settings import load_settings
from worker.tether import Tether


class ScriptedWorks:
    def __init__(self, state: Path) -> None:
        self._state = state

    def backup(self, lease: Lease, spec: BackupSpec, tether: Tether) -> JobReport:
        self._say(f"backup {lease.attempt} {lease.fence} {os.getpid()}")
        tether.progress(Progress(stage=Stage.UPLOADING, bytes_done=5, bytes_total=10))
        script = (self._state / "script").read_text()
        if script == "wait":
            self._until_cancelled(tether)
        elif script == "fail":
            raise PrecheckFailed("The fridge is open.")
        elif script.endswith("-once"):
            (self._state / "script").write_text("ok")
            if script == "crash-once":
                os.kill(os.getpid(), 9)
            raise StoreUnavailable("The store takes a nap.")
        tether.progress(Progress(stage=Stage.COMMITTING))
        tether.before_commit()
        self._say(f"committed with {tether.credentials().access_key}")
        return JobReport(files=3, logical_bytes=10)

    def restore(self, lease: Lease, spec: RestoreSpec, *, root: bytes, destination: Path, tether: Tether) -> JobReport:
        self._say(f"restore {root.decode()} to {destination}")
        return JobReport(files=1, destination=str(destination))

    def check(self, lease: Lease, spec: CheckSpec, tether: Tether) -> JobReport:
        return JobReport()

    def _until_cancelled(self, tether: Tether) -> None:
        while not tether.cancelled():
            time.sleep(0.05)
        self._say("cancelled")
        raise Cancelled("Told to stop.")

    def _say(self, line: str) -> None:
        with (self._state / "said").open("a") as file:
            file.write(line + "\n")


def main() -> None:
    jobrun.FIRST_PAUSE_S = 0.2
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("job_id")
    parser.add_argument("--instance")
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    configure_logging(json=True)
    settings = load_settings(state=options.state)
    journal = compose.open_journal(settings)
    stopping = threading.Event()
    watch_pipe(io.FileIO(sys.stdin.fileno(), closefd=False), stopping.set)
    with only_one(settings.state / compose.JOB_LOCK, what="Another job runs", wait_s=10):
        deps = compose.job_deps(
            settings, journal, instance=options.instance, stopping=stopping, works=ScriptedWorks(settings.state)
        )
        with deps.client:
            jobrun.run_job(options.job_id, deps)


if __name__ == "__main__":
    main()

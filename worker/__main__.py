"""`stateward-worker`: the program on a host. The only place of it that exits."""

from __future__ import annotations

import sys

from common.program import run_program, take_flags


def main() -> None:
    """Entry point of the program."""
    flags, arguments = take_flags(sys.argv[1:], ("--debug",))
    sys.exit(run_program(lambda: _call(arguments), debug="--debug" in flags, as_json="--json" in arguments))


def _call(arguments: list[str]) -> int | None:
    """Loads the program and runs it: Ctrl-C during the second that takes ends like Ctrl-C later, in words."""
    from worker.cli.app import build  # noqa: PLC0415
    from worker.platform import prepare_process  # noqa: PLC0415

    prepare_process()
    code: int | None = build()(arguments, standalone_mode=False)
    return code


if __name__ == "__main__":
    main()

"""The program `stateward`: options before or after the command, exit codes, errors with a next step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ExitCode, UsageError
from coordinator.__main__ import run
from coordinator.cli.context import size
from coordinator.cli.options import split_options


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "/d", "--json", "host", "show", "x"],
        ["host", "show", "x", "--json", "--data=/d"],
        ["host", "--data", "/d", "show", "--json", "x"],
    ],
)
def test_global_options_stand_anywhere(arguments: list[str]) -> None:
    options, rest = split_options(arguments)
    assert (options.data, options.json, options.quiet) == (Path("/d"), True, False)
    assert rest == ["host", "show", "x"]


def test_what_follows_two_hyphens_is_left_alone_and_a_value_may_not_be_missing() -> None:
    assert split_options(["a", "--", "--json"])[1] == ["a", "--", "--json"]
    with pytest.raises(UsageError, match="--data"):
        split_options(["host", "--data"])
    assert "swt_x" not in repr(split_options(["--token", "swt_x"])[0])


def test_help_shows_exit_codes_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(code.meaning[:30] in shown for code in ExitCode)
    assert run(["serve", "--help"]) == 0
    assert "STATEWARD_STORAGE__ENDPOINT" in capsys.readouterr().out


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonsense"]) == 2
    assert run(["host", "show"]) == 2
    assert run([]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_coordinator_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--data", str(tmp_path), "host", "list"]) == ExitCode.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert "No coordinator has run" in told.err
    assert "stateward up" in told.err
    assert "docs/troubleshooting.md#coordinator_unavailable" in told.err
    assert "Traceback" not in told.err
    assert run(["--data", str(tmp_path), "host", "list", "--debug"]) == ExitCode.UNREACHABLE
    assert "Traceback" in capsys.readouterr().err
    assert run(["--data", str(tmp_path), "host", "list", "--json"]) == ExitCode.UNREACHABLE
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "coordinator_unavailable"
    assert run(["--api", "http://127.0.0.1:9", "host", "list"]) == ExitCode.USAGE


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536 * 1024, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "3.0 TiB",
    ]

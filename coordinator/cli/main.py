"""The commands of `stateward`, as one typer application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import typer

from common.errors import ExitCode
from coordinator.cli import hosts, jobs, points, restoring, serving, vaults
from coordinator.cli.options import HELP
from coordinator.settings import settings_table

Registration: TypeAlias = Callable[[typer.Typer], None]
"""Adds commands: `coordinator.embedded` gives one for `up` and `quickstart`."""


def build_app(extras: Sequence[Registration] = ()) -> typer.Typer:
    app = typer.Typer(
        help="Back up a fleet's system state into immutable S3 vaults.",
        epilog=_epilog(),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_nothing)
    for register in extras:
        register(app)
    app.command(epilog=_settings())(serving.serve)
    app.add_typer(vaults.app, name="vault")
    app.add_typer(hosts.app, name="host")
    app.command()(jobs.backup)
    app.add_typer(jobs.app, name="job")
    app.add_typer(points.app, name="point")
    app.command()(restoring.restore)
    return app


def _nothing() -> None:
    """Global options were taken out before (`coordinator.cli.options`); the epilog lists them."""


def _epilog() -> str:
    options = [f"  {name:<14} {what}" for name, what in HELP]
    codes = [f"  {code.value:<3} {code.meaning}" for code in ExitCode]
    return "\n".join(["\b", "Global options, before or after the command:", *options, "", "\b", "Exit codes:", *codes])


def _settings() -> str:
    rows = [f"  {name} [{default}]  {what}" for name, default, what in settings_table()]
    return "\n".join(["\b", "Settings: environment, or the same names in lower case in the TOML file:", *rows])

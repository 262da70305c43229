"""Settings of the worker: flags, then environment (`STATEWARD_…`), then `worker.toml` in the state folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from common.errors import ConfigInvalid


def default_state() -> Path:
    """The state folder where none is named: the machine's for an administrator, else the user's."""
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "Stateward"
    if os.geteuid() == 0:
        return Path("/var/lib/stateward-worker")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "stateward-worker"


class RestoreSettings(BaseModel):
    """What this host lets a remote restore do beyond its own points, into its scratch folder, without overwriting.

    They are settings of the host on purpose: the coordinator cannot change them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_other_destinations: bool = False
    """Folders outside the scratch folder."""
    allow_overwrite: bool = False
    """Conflict mode `overwrite`."""
    allow_foreign_points: bool = False
    """Recovery points of other hosts: of those in `foreign_hosts`."""
    foreign_hosts: dict[str, str] = Field(default_factory=dict)
    """Host id → its Ed25519 public key (base64): whose points may be restored here, and who must have signed the grant."""


class WorkerSettings(BaseSettings):
    """Everything a person may set on a host."""

    model_config = SettingsConfigDict(
        env_prefix="STATEWARD_", env_nested_delimiter="__", extra="ignore", frozen=True, validate_default=True
    )

    state: Path = Field(default_factory=default_state)
    """Folder with identity, journal and cache (0700)."""
    scratch: Path | None = None
    """Where restores go that name no destination; None: `restores` in the state folder."""
    restore: RestoreSettings = RestoreSettings()
    start_spread_s: float = Field(default=5.0, ge=0, le=3600)
    """The agent waits a random part of this before it connects, so that a fleet does not start together."""
    never_back_up: tuple[Path, ...] = ()
    """Folders that no job of this host reads, such as one that a vault lies in."""
    proxy: str = ""
    """Proxy for HTTPS; empty: HTTPS_PROXY and NO_PROXY of the environment."""

    @property
    def scratch_folder(self) -> Path:
        return self.scratch or self.state / "restores"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, then the TOML file of the state folder that the two before name."""
        named = {**env_settings(), **init_settings()}.get("state")
        toml = TomlConfigSettingsSource(settings_cls, Path(named or default_state()) / "worker.toml")
        return (init_settings, env_settings, toml)


def load_settings(**flags: Any) -> WorkerSettings:
    """Settings with the flags that were given (None: not given).

    Raises:
        ConfigInvalid: names the setting and its value.
    """
    try:
        return WorkerSettings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigInvalid(f"The setting {where} cannot be {first['input']!r}: {first['msg']}.") from error
    except ValueError as error:  # TOML that cannot be read
        raise ConfigInvalid(f"worker.toml cannot be read: {error}.") from error

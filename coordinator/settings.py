"""What can be set, with defaults. The only file of the coordinator that reads the environment.

Order: arguments, then environment (`STATEWARD_…`, nested names with two underscores: `STATEWARD_STORAGE__ENDPOINT`),
then the TOML file (`STATEWARD_CONFIG`, else `<data>/coordinator/stateward.toml`), then the defaults below.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from common.errors import ConfigInvalid


def default_data() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "stateward"


class StorageSettings(BaseModel):
    """The S3 store of all vaults, and the two users of it that the coordinator has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = Field(default="", description="http(s)://host:port of the store; empty for AWS")
    region: str = Field(default="us-east-1", description="region of the store")
    janitor_access_key: str = Field(default="", description="user that makes buckets, reads heads, extends, deletes")
    janitor_secret_key: SecretStr = Field(default=SecretStr(""), description="its secret key")
    broker_access_key: str = Field(default="", description="user with PUT and GET alone; assumes the role for hosts")
    broker_secret_key: SecretStr = Field(default=SecretStr(""), description="its secret key")
    role_arn: str = Field(default="arn:aws:iam::role/worker", min_length=20, description="role of the hosts' sessions")
    session_s: int = Field(default=3600, ge=900, le=3600, description="life of a host's storage credentials")


class QueueSettings(BaseModel):
    """Redis. It may be down: HTTPS carries on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="", description="redis://host:port/0 or rediss://… without user; empty: HTTPS alone")
    host_url: str = Field(default="", description="the address hosts use, when it is another one")
    publisher_password: SecretStr = Field(
        default=SecretStr(""), description="of coord-pub; empty: derived from the key files"
    )
    admin_password: SecretStr = Field(
        default=SecretStr(""), description="of acl-admin; empty: derived from the key files"
    )


_NESTED: dict[str, type[BaseModel]] = {"storage": StorageSettings, "queue": QueueSettings}


class Settings(BaseSettings):
    """Of one coordinator process."""

    model_config = SettingsConfigDict(
        env_prefix="STATEWARD_", env_nested_delimiter="__", frozen=True, extra="ignore", env_ignore_empty=True
    )

    data: Path = Field(default_factory=default_data, description="folder of all data; the coordinator's part is in it")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite in the data folder")
    listen_host: str = Field(default="127.0.0.1", description="address to listen on; others than loopback need TLS")
    listen_port: int = Field(default=8420, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    tls_certificate: Path | None = Field(default=None, description="PEM file")
    tls_key: Path | None = Field(default=None, description="PEM file")
    public_url: str = Field(default="", description="URL hosts use; empty: the address listened on")
    storage: StorageSettings = StorageSettings()
    queue: QueueSettings = QueueSettings()
    max_concurrent_jobs: int = Field(default=20, ge=1, description="backups of one vault at one time")
    start_window_s: int = Field(default=86_400, ge=60, description="how long a job asked for by a person may wait")
    lost_after_s: float = Field(default=300.0, gt=0, description="a lease not renewed for so long is lost")
    max_attempts: int = Field(default=3, ge=1, description="leases a job gets before it fails")
    retry_after_s: float = Field(default=60.0, ge=0, description="wait after the first lost attempt; doubles")
    renew_every_s: float = Field(default=30.0, gt=0, description="how often a host renews its lease")
    job_time_limit_s: int = Field(default=604_800, ge=60, description="a lease ends after so long, renewed or not")
    checkin_s: float = Field(default=300.0, gt=0, description="check-ins of a silent host")
    janitor_s: float = Field(default=1.0, gt=0, description="pause between two rounds of the janitor")
    publish_s: float = Field(default=1.0, gt=0, description="pause between two looks at the outbox")
    sweep_s: float = Field(default=30.0, gt=0, description="pause between two sweeps for messages that got lost")
    alive_s: float = Field(default=10.0, gt=0, description="how often the API notes that it takes renewals")
    metrics_networks: tuple[str, ...] = Field(default=(), description="networks that may read /metrics without a token")
    max_body_bytes: int = Field(default=4_000_000, ge=65_536, description="longest request body taken")
    log_json: bool = Field(default=False, description="logs as JSON lines")

    @model_validator(mode="after")
    def _tls_where_needed(self) -> Settings:
        if not self.loopback and (self.tls_certificate is None or self.tls_key is None):
            raise ValueError(f"listen_host {self.listen_host} is not loopback: set tls_certificate and tls_key")
        for name, url, plain in (
            ("queue.url", self.queue.url, "redis"),
            ("queue.host_url", self.queue.host_url, "redis"),
        ):
            parts = urlsplit(url)
            if parts.scheme == plain and not _is_loopback(parts.hostname or ""):
                raise ValueError(f"{name} {parts.hostname} is not loopback: use rediss://")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings()
        named = given.pop("config", None)
        file = Path(named) if named else _config_file(Path(given["data"]) if given.get("data") else None)
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @property
    def folder(self) -> Path:
        """The coordinator's own folder (0700)."""
        return self.data / "coordinator"

    @property
    def sql_url(self) -> str:
        return self.database_url or f"sqlite:///{self.folder / 'stateward.db'}"

    @property
    def loopback(self) -> bool:
        return _is_loopback(self.listen_host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ClientSettings(BaseSettings):
    """How the command line finds its coordinator."""

    model_config = SettingsConfigDict(env_prefix="STATEWARD_", frozen=True, extra="ignore", env_ignore_empty=True)

    api: str = ""
    token: SecretStr = SecretStr("")
    data: Path = Field(default_factory=default_data)


def load_settings(**given: Any) -> Settings:
    """Raises ConfigInvalid with the setting's name and what is wrong with its value."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigInvalid(_first(error)) from error
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"The settings file cannot be read: {error}") from error


def load_client_settings(**given: Any) -> ClientSettings:
    try:
        return ClientSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigInvalid(_first(error)) from error


def settings_table() -> list[tuple[str, str, str]]:
    """(environment name, default, meaning) of every setting, for `--help` and the documentation."""
    rows: list[tuple[str, str, str]] = []
    for name, field in Settings.model_fields.items():
        nested = _NESTED.get(name)
        if nested is not None:
            rows += [
                (f"STATEWARD_{name}__{inner}".upper(), _shown(part.default), part.description or "")
                for inner, part in nested.model_fields.items()
            ]
            continue
        default = "${XDG_DATA_HOME:-~/.local/share}/stateward" if name == "data" else _shown(field.default)
        rows.append((f"STATEWARD_{name}".upper(), default, field.description or ""))
    return rows


def _shown(default: object) -> str:
    if isinstance(default, SecretStr) or default is None:
        return ""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"Setting {name}: {first['msg']}."


def _config_file(data: Path | None) -> Path | None:
    named = os.environ.get("STATEWARD_CONFIG")
    if named:
        return Path(named)
    folder = data or Path(os.environ.get("STATEWARD_DATA") or default_data())
    file = folder / "coordinator" / "stateward.toml"
    return file if file.is_file() else None

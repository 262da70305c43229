"""Settings: their order, their limits, and that no secret of theirs is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigInvalid
from coordinator.settings import load_client_settings, load_settings, settings_table


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATEWARD_CONFIG", "STATEWARD_DATA", "STATEWARD_API", "STATEWARD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))


def test_defaults_are_embedded(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.data == tmp_path / "share" / "stateward"
    assert settings.sql_url == f"sqlite:///{settings.folder / 'stateward.db'}"
    assert settings.loopback


def test_arguments_come_before_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "coordinator"
    folder.mkdir(parents=True)
    (folder / "stateward.toml").write_text(
        'listen_port = 1\nmax_attempts = 7\nlost_after_s = 9.0\n[storage]\nendpoint = "http://127.0.0.1:1"\n'
    )
    monkeypatch.setenv("STATEWARD_LISTEN_PORT", "2")
    monkeypatch.setenv("STATEWARD_MAX_ATTEMPTS", "8")
    settings = load_settings(data=tmp_path / "data", listen_port=3)
    assert (settings.listen_port, settings.max_attempts, settings.lost_after_s) == (3, 8, 9.0)
    assert settings.storage.endpoint == "http://127.0.0.1:1"


def test_a_named_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("renew_every_s = 5.0\n")
    assert load_settings(config=file).renew_every_s == 5.0
    file.write_text("renew_every_s = ")
    with pytest.raises(ConfigInvalid, match="settings file"):
        load_settings(config=file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "backup.example.org"])
def test_other_addresses_than_loopback_need_tls(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="not loopback"):
        load_settings(listen_host=host)
    assert load_settings(listen_host=host, tls_certificate=tmp_path / "c", tls_key=tmp_path / "k").listen_host == host


def test_a_wrong_value_names_its_setting() -> None:
    with pytest.raises(ConfigInvalid, match="listen_port"):
        load_settings(listen_port=70_000)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWARD_STORAGE__JANITOR_SECRET_KEY", "hunter2hunter2")
    monkeypatch.setenv("STATEWARD_TOKEN", "hunter2hunter2")
    assert "hunter2" not in repr(load_settings()) + repr(load_client_settings())


def test_every_setting_says_what_it_is() -> None:
    assert all(what for _, _, what in settings_table())

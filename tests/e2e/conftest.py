"""What the end-to-end tests share: a host with a vault in a folder."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_programs import Done, content_of, environment, run, worker

PASSPHRASE = "correct horse battery staple"
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host that is initialised in a vault in a folder, and has one recovery point of `source`."""

    folder: Path
    source: Path
    files: dict[str, bytes]

    @property
    def vault(self) -> Path:
        return self.folder / "vault"

    @property
    def url(self) -> str:
        return f"file://{self.vault}"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def passphrase(self) -> Path:
        return self.folder / "passphrase"

    @property
    def environ(self) -> dict[str, str]:
        return environment(self.folder, STATEWARD_STATE=str(self.state))

    def run(self, command: str, *arguments: object, vault: str | None = None, **more: Any) -> Done:
        """A command on the vault, with --json."""
        return run(worker(command, "--vault", vault or self.url, "--json", *arguments), self.environ, **more)

    def recover(self, to: Path, *arguments: object, vault: str | None = None, **more: Any) -> Done:
        return self.run("recover", "--passphrase-file", self.passphrase, "--to", to, *arguments, vault=vault, **more)


def new_site(folder: Path) -> Site:
    """Initialised, with an empty source and no point."""
    source = folder / "source"
    source.mkdir()
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    site = Site(folder=folder, source=source, files={})
    site.run("init", "--passphrase-file", site.passphrase).fine()
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Its source fills several packs. Tests leave it as it is."""
    begun = new_site(tmp_path_factory.mktemp("site"))
    for number in range(6):
        (begun.source / f"part-{number}").write_bytes(os.urandom(8 * MIB))
    (begun.source / "small").write_bytes(secrets.token_bytes(100))
    begun.run("backup", begun.source).fine()
    return Site(folder=begun.folder, source=begun.source, files=content_of(begun.source))

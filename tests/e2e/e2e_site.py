"""A host with a vault in a folder, and no coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_programs import Done, environment, run, worker

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

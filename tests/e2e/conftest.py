"""What the end-to-end tests share."""

from __future__ import annotations

import os
import secrets

import pytest
from e2e_programs import content_of
from e2e_site import MIB, Site, new_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Its source fills several packs. Tests leave it as it is."""
    begun = new_site(tmp_path_factory.mktemp("site"))
    for number in range(6):
        (begun.source / f"part-{number}").write_bytes(os.urandom(8 * MIB))
    (begun.source / "small").write_bytes(secrets.token_bytes(100))
    begun.run("backup", begun.source).fine()
    return Site(folder=begun.folder, source=begun.source, files=content_of(begun.source))

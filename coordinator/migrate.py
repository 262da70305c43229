"""Bring a database to this program's revision; run at each start, from a checkout or an installed wheel alike."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from common.errors import ConfigInvalid
from coordinator.db import Database


def migrate(db: Database) -> None:
    """Raises ConfigInvalid when the database is newer than this program."""
    config = alembic_config()
    db.forbid_open_transaction()
    with db.writer.connect() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            head = ScriptDirectory.from_config(config).get_current_head()
            raise ConfigInvalid(
                f"The database is of another program version than this one (revision {head}): {error}",
                next_step="Start the newest stateward that has used this database.",
            ) from error
        connection.commit()


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", "coordinator:migrations")
    config.set_main_option("path_separator", "os")
    return config

"""The first tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from coordinator.db import Json, UtcMoment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.Column("expires", UtcMoment(), nullable=True),
        sa.Column("revoked", UtcMoment(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "rejected_messages",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("reason", sa.String(length=100), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("message", Json, nullable=True),
        sa.Column("at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "stored_answers",
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("instance", sa.String(length=100), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", Json, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", "instance", "seq", "request"),
    )
    with op.batch_alter_table("stored_answers", schema=None) as batch_op:
        batch_op.create_index("ix_stored_answers_at", ["at"], unique=False)

    op.create_table(
        "taken_events",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("id", "host_id"),
    )
    op.create_table(
        "vaults",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("bucket", sa.String(length=63), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("region", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("step", sa.String(length=50), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("max_concurrent_jobs", sa.Integer(), nullable=True),
        sa.Column("vault_object", sa.LargeBinary(), nullable=True),
        sa.Column("config_key", sa.String(length=100), nullable=False),
        sa.Column("config_object", sa.LargeBinary(), nullable=True),
        sa.Column("config_seq", sa.Integer(), nullable=False),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "credentials_files",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("vault_id", sa.String(length=36), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("host_pattern", sa.String(length=255), nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("region", sa.String(length=100), nullable=False),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.Column("expires", UtcMoment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["vault_id"],
            ["vaults.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("vault_id", sa.String(length=36), nullable=False),
        sa.Column("credentials_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("region", sa.String(length=100), nullable=False),
        sa.Column("report", Json, nullable=False),
        sa.Column("record_key", sa.String(length=100), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("enrolled", UtcMoment(), nullable=False),
        sa.Column("removed", UtcMoment(), nullable=True),
        sa.Column("last_seen", UtcMoment(), nullable=True),
        sa.Column("last_point", UtcMoment(), nullable=True),
        sa.Column("last_code", sa.String(length=50), nullable=False),
        sa.Column("clock_offset_s", sa.Double(), nullable=False),
        sa.Column("agent_base", sa.String(length=64), nullable=False),
        sa.Column("agent_base_before", sa.String(length=64), nullable=False),
        sa.Column("cloned", UtcMoment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credentials_id"],
            ["credentials_files.id"],
        ),
        sa.ForeignKeyConstraint(
            ["vault_id"],
            ["vaults.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.create_index("ix_hosts_name", ["name"], unique=False)
        batch_op.create_index("ix_hosts_vault", ["vault_id", "state"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("vault_id", sa.String(length=36), nullable=False),
        sa.Column("spec", Json, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=30), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("retain_until", UtcMoment(), nullable=True),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.Column("expires", UtcMoment(), nullable=False),
        sa.Column("not_before", UtcMoment(), nullable=False),
        sa.Column("started", UtcMoment(), nullable=True),
        sa.Column("ended", UtcMoment(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("leased", UtcMoment(), nullable=True),
        sa.Column("renewed", UtcMoment(), nullable=True),
        sa.Column("deadline", UtcMoment(), nullable=True),
        sa.Column("credentials_expire", UtcMoment(), nullable=True),
        sa.Column("watched_until", UtcMoment(), nullable=True),
        sa.Column("point", sa.String(length=26), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("prev_point", sa.String(length=26), nullable=True),
        sa.Column("prev_sha256", sa.String(length=64), nullable=True),
        sa.Column("progress", Json, nullable=True),
        sa.Column("report", Json, nullable=True),
        sa.Column("code", sa.String(length=50), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("next_step", sa.Text(), nullable=False),
        sa.Column("restore_key", sa.LargeBinary(), nullable=True),
        sa.Column("restore_signature", sa.LargeBinary(), nullable=True),
        sa.Column("grant_sealed", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["vault_id"],
            ["vaults.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency"),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index("ix_jobs_created", ["created", "id"], unique=False)
        batch_op.create_index("ix_jobs_host", ["host_id", "state"], unique=False)
        batch_op.create_index("ix_jobs_state", ["state", "renewed"], unique=False)
        batch_op.create_index("ix_jobs_vault", ["vault_id", "state"], unique=False)

    op.create_table(
        "points",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("vault_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.String(length=200), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.Column("received", UtcMoment(), nullable=False),
        sa.Column("logical_bytes", sa.BigInteger(), nullable=False),
        sa.Column("new_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("warnings", sa.Integer(), nullable=False),
        sa.Column("consistency", sa.String(length=200), nullable=False),
        sa.Column("indexes", Json, nullable=False),
        sa.Column("lists", Json, nullable=False),
        sa.Column("pack_hosts", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["vault_id"],
            ["vaults.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("points", schema=None) as batch_op:
        batch_op.create_index("ix_points_host", ["host_id", "seq"], unique=False)
        batch_op.create_index("ix_points_received", ["received", "id"], unique=False)
        batch_op.create_index("ix_points_vault", ["vault_id"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("created", UtcMoment(), nullable=False),
        sa.Column("published", UtcMoment(), nullable=True),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id"),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_published", ["published", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index("ix_outbox_published")

    op.drop_table("outbox")
    with op.batch_alter_table("points", schema=None) as batch_op:
        batch_op.drop_index("ix_points_vault")
        batch_op.drop_index("ix_points_received")
        batch_op.drop_index("ix_points_host")

    op.drop_table("points")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_vault")
        batch_op.drop_index("ix_jobs_state")
        batch_op.drop_index("ix_jobs_host")
        batch_op.drop_index("ix_jobs_created")

    op.drop_table("jobs")
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.drop_index("ix_hosts_vault")
        batch_op.drop_index("ix_hosts_name")

    op.drop_table("hosts")
    op.drop_table("credentials_files")
    op.drop_table("vaults")
    op.drop_table("taken_events")
    with op.batch_alter_table("stored_answers", schema=None) as batch_op:
        batch_op.drop_index("ix_stored_answers_at")

    op.drop_table("stored_answers")
    op.drop_table("rejected_messages")
    op.drop_table("facts")
    op.drop_table("api_tokens")

"""Alembic's entry: runs the scripts on the engine that `store` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from outreach import models  # noqa: F401  (fills the metadata)

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        connection = connection.execution_options(outreach_begin="IMMEDIATE")
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()

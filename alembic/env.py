"""Runs migrations against the database of the settings, or on a connection handed over."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection

from alembic import context
from app.config import load_settings
from app.database import connect
from app.models import Base


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        # One transaction a migration: on PostgreSQL and SQLite a failed one leaves nothing.
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    database = connect(load_settings())
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await database.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    asyncio.run(connect_and_run())

"""Looks whether everything is as the app needs it, and says how to mend what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from app.cli.doctor import databases, host, services, sqlitefile
from app.cli.doctor.findings import Finding, Secrets, bounded, in_time
from app.config import Settings
from app.db.engine import connect


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield every finding, in the order people would look. Never raise, hang or show a secret.

    What cannot be asked because something before it failed is left out.
    """
    secrets = Secrets(settings)
    for name, check in host.CHECKS.items():
        for finding in await bounded(name, check(settings), secrets):
            yield finding
    async for finding in _of_database(settings, secrets):
        yield finding
    for name, check in services.CHECKS.items():
        for finding in await bounded(name, check(settings), secrets):
            yield finding


async def _of_database(settings: Settings, secrets: Secrets) -> AsyncIterator[Finding]:
    if problem := sqlitefile.problem(settings):
        yield problem
        return
    database = connect(settings)
    for name, look in databases.checks(settings):
        findings = await bounded(name, look(database, settings), secrets)
        for finding in findings:
            yield finding
        if databases.ends(name, findings):
            break
    with suppress(TimeoutError):
        await in_time(database.dispose())

"""Two versions on one schema: this code on tables that the next version has migrated.

That version is simulated by a migration that does all that a migration may do.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, inspect, select, text

from app.db import migrations
from app.db.engine import connect
from app.models.posts import Post
from tests.conftest import ROOT, make_settings, migrate
from tests.support.apps import app_of
from tests.support.client import Client
from tests.support.commands import SetEnv, invoke
from tests.support.openapi import Contract
from tests.support.people import new_user
from tests.support.schema import connected, empty_database

LATER = "9999"
VERSIONS = sorted((ROOT / "alembic" / "versions").glob("*.py"))
BIG = BigInteger().with_variant(Integer(), "sqlite")
# What takes something away from the version that still serves.
TAKING = {"drop_table", "drop_column", "drop_constraint", "rename_table", "alter_column"}


@pytest.fixture
def ahead(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A database that the next version has migrated already."""
    with empty_database(database_url, tmp_path) as url:
        migrate(url, tmp_path)
        with connected(url) as connection:
            op = Operations(MigrationContext.configure(connection))
            for table in ("users", "posts", "sessions", "outbox"):
                op.add_column(table, Column("later_note", String(20), nullable=True))
                op.add_column(table, Column("later_count", Integer, server_default="0"))
                op.create_index(f"ix_{table}_later_note", table, ["later_note"])
            op.create_table(
                "later_things",
                Column("id", BIG, primary_key=True),
                Column("user_id", BIG, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
            )
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": LATER})
        yield url


@pytest.fixture
async def old(ahead: str, contract: Contract, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of this version, which is the one before."""
    async with app_of(make_settings(ahead, tmp_path)) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            yield Client(http, app, contract)


async def test_the_version_before_works_on_the_tables_of_the_version_after(
    old: Client, ahead: str, set_env: SetEnv
) -> None:
    assert (await old.get("/health/ready")).status_code == 200
    ana = await old.user()
    created = await ana.post("/posts", {"title": "One", "content": "", "tags": ["x"]})
    path = created.headers["location"]
    with connected(ahead) as connection:
        connection.execute(text("UPDATE posts SET later_note = 'kept', later_count = 7"))
        connection.execute(text(f"INSERT INTO later_things VALUES (1, {ana.id})"))
    assert (await ana.patch(path, {"title": "Two"})).status_code == 200
    assert (await old.get("/posts")).json()["total"] == 0, "a draft"
    with connected(ahead) as connection:
        assert connection.execute(select(Post.title)).scalar_one() == "Two"
        kept = connection.execute(text("SELECT later_note, later_count FROM posts")).one()
        assert tuple(kept) == ("kept", 7), "what the version after wrote is left alone"
    boss = await new_user(old, roles=["admin", "user"])
    assert (await boss.delete(f"/users/{ana.id}")).status_code == 204
    set_env(database_url=ahead, trash_days=0)
    assert (await invoke("purge")).exit_code == 0
    with connected(ahead) as connection:
        assert connection.scalar(text("SELECT count(*) FROM later_things")) == 0


async def test_migrating_with_the_version_before_changes_nothing(
    ahead: str, set_env: SetEnv
) -> None:
    """As when one goes back: the container that migrates must not keep the API from starting."""
    set_env(database_url=ahead)
    done = await invoke("migrate")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"Nothing to do: a newer version migrated to {LATER}.\n"
    with connected(ahead) as connection:
        assert "later_things" in inspect(connection).get_table_names()
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == LATER


async def test_how_far_the_tables_are_is_known(database_url: str, tmp_path: Path) -> None:
    with empty_database(database_url, tmp_path) as url:
        database = connect(make_settings(url, tmp_path))
        fresh = await migrations.revision_of(database)
        await asyncio.to_thread(migrate, url, tmp_path, "0001")
        older = await migrations.revision_of(database)
        await asyncio.to_thread(migrate, url, tmp_path)
        current = await migrations.revision_of(database)
        await database.dispose()
    assert (fresh.found, fresh.is_older, fresh.is_newer) == (None, True, False)
    assert (older.found, older.is_older, older.is_newer) == ("0001", True, False)
    assert (current.found, current.is_older, current.is_newer) == (current.head, False, False)


# --- How migrations are written ------------------------------------------------------------------


def test_revisions_are_numbers_in_their_order() -> None:
    """`app/db/migrations.py` tells by them which of two versions is the newer one."""
    numbers = [file.name[:4] for file in VERSIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(VERSIONS) + 1)]
    for file, number in zip(VERSIONS, numbers, strict=True):
        assert f'revision = "{number}"' in file.read_text()


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_migrations_only_add(file: Path) -> None:
    """Or say in their docstring since which release nothing uses any more what they remove."""
    taken = taking(file.read_text())
    assert not taken or "Unused since " in (ast.get_docstring(ast.parse(file.read_text())) or "")


def taking(source: str) -> set[str]:
    """The operations of a migration's way up that take something away, or demand what the version
    before does not give: a column that is neither nullable nor filled by the server."""
    tree = ast.parse(source)
    ups = [node for node in tree.body if getattr(node, "name", "") != "downgrade"]
    calls = [node for up in ups for node in ast.walk(up) if isinstance(node, ast.Call)]
    names = {name for call in calls if (name := getattr(call.func, "attr", ""))}
    added = [call for call in calls if getattr(call.func, "attr", "") == "add_column"]
    columns = [node for call in added for node in ast.walk(call) if isinstance(node, ast.Call)]
    given = [{one.arg: ast.unparse(one.value) for one in call.keywords} for call in columns]
    demands = any(
        each.get("nullable") == "False" and "server_default" not in each for each in given
    )
    return names & TAKING | ({"add_column"} if demands else set())


@pytest.mark.parametrize(
    ("up", "taken"),
    [
        ("with op.batch_alter_table('x') as table: table.drop_column('y')", {"drop_column"}),
        ("op.add_column('x', sa.Column('y', BIG(), nullable=False))", {"add_column"}),
        ("op.add_column('x', sa.Column('y', BIG, nullable=False, server_default='0'))", set()),
        ("op.add_column('x', sa.Column('y', BIG, nullable=True))", set()),
    ],
)
def test_the_search_for_what_takes_finds_it(up: str, taken: set[str]) -> None:
    assert taking(f"def upgrade():\n    {up}") == taken
    assert taking(f"def downgrade():\n    {up}") == set()

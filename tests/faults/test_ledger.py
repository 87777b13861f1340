"""The ledger sees what it is there to see."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from app.db.engine import Database
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.users import UserRole
from tests.faults.ledger import Ledger, half_rows, marked
from tests.support.client import Client
from tests.support.people import new_user

pytestmark = pytest.mark.faults

CONTENT = "1-1\nañ"
POST = ("A title", CONTENT, "published", (), 1, False)


@pytest.fixture
async def ledger(client: Client) -> Ledger:
    """Of one acknowledged post and one acknowledged registration."""
    filled = Ledger()
    writer = await new_user(client)
    filled.facts[("user", writer.email)] = (writer.account["name"], ("user",), 0, 0)
    for key, value in (
        (marked(CONTENT), POST),
        (("user", "new@example.com"), ("Ana", ("user",), 1, 1)),
    ):
        filled.ask(key, value)
        filled.acknowledge(key)
    await writer.write(content=CONTENT)
    await client.register(email="new@example.com")
    return filled


async def test_what_is_there_is_neither_lost_nor_doubled(
    ledger: Ledger, database: Database
) -> None:
    assert await ledger.settle(database) == ([], [])


@pytest.mark.parametrize(
    "harm",
    [
        delete(Post),
        update(Post).values(content="1-1\nan"),
        update(Post).values(version=2),
        delete(Mail),
        delete(UserRole),
    ],
    ids=["post", "letter", "version", "mail", "role"],
)
async def test_what_is_gone_or_halved_is_told(
    ledger: Ledger, database: Database, harm: object
) -> None:
    async with database.begin() as session:
        await session.execute(harm)  # type: ignore[call-overload]  # each of them is a statement
    lost, _ = await ledger.settle(database)
    assert lost


async def test_what_is_there_twice_or_unasked_is_told(
    ledger: Ledger, client: Client, database: Database
) -> None:
    writer = await new_user(client)
    ledger.facts[("user", writer.email)] = (writer.account["name"], ("user",), 0, 0)
    await writer.write(content=CONTENT)
    assert await ledger.settle(database) == ([], [str(marked(CONTENT))])
    await writer.write(content="another")
    _, unasked = await ledger.settle(database)
    assert str(marked("another")) in unasked


async def test_what_is_in_doubt_may_be_either(ledger: Ledger, database: Database) -> None:
    ledger.ask(marked(CONTENT), ("A title", CONTENT, "published", (), 2, False))
    ledger.ask(marked("never"), ("A title", "never", "draft", (), 1, False))
    assert await ledger.settle(database) == ([], [])
    assert (ledger.facts[marked(CONTENT)], ledger.facts[marked("never")]) == (POST, None)


async def test_a_row_that_points_at_nothing_is_told(ledger: Ledger, database: Database) -> None:
    assert ledger.facts
    if database.dialect != "sqlite":
        pytest.skip("the servers do not let anybody do this")
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw._raw.execute("PRAGMA foreign_keys=OFF")
        raw._raw.execute("UPDATE posts SET author_id = 4711")
        raw._raw.commit()
        raw._raw.execute("PRAGMA foreign_keys=ON")
    assert await half_rows(database) == ["1 rows of posts without users"]

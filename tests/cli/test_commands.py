"""The commands behind `scripts/`, except those that serve, on every database."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from app.cli import seeding
from app.core.i18n import fill, find
from app.db.engine import Database
from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post
from app.models.search import PostSearch
from app.models.tags import Tag
from app.models.users import User
from app.tasks import retention as purging
from tests.support.client import PASSWORD, Client
from tests.support.commands import SetEnv, admin_of, invoke
from tests.support.process import environment, run_command
from tests.support.purging import without_other_trash

ADMIN = {"--email": "boss@example.com", "--name": "Boss", "--password": PASSWORD}


PURGED = (
    *("mails", "posts", "roles", "users", "sessions", "refresh tokens", "links"),
    *("idempotency keys", "tags", "old mails", "events"),
)


def purged_line(**counts: int) -> str:
    """What `purge` prints."""
    line = ", ".join(f"{counts.get(name, 0)} {name}" for name in PURGED) + " purged.\n"
    return without_other_trash(line)


def options(**changes: str | None) -> list[str]:
    """Options of create-admin; None leaves one out."""
    given = ADMIN | {f"--{name}": value for name, value in changes.items()}
    return [part for pair in given.items() if pair[1] is not None for part in pair if part]


# --- Files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.usefixtures("database_url")
async def test_what_commands_make_is_for_its_owner_alone(set_env: SetEnv, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    os.umask(0o022)
    set_env(data_dir=folder)
    for arguments in (("migrate",), ("create-admin", *options())):
        done = await invoke(*arguments)
        assert done.exit_code == 0, done.output
    await asyncio.to_thread((folder / "later").touch)
    paths = {path.name: path for path in (folder, *folder.iterdir())}
    assert {"state", "cimiento.db", "later"} <= set(paths)
    modes = {name: stat.S_IMODE(path.stat().st_mode) & 0o077 for name, path in paths.items()}
    assert set(modes.values()) == {0}, modes


# --- create-admin ----------------------------------------------------------------------------


@pytest.mark.usefixtures("same_database")
async def test_create_admin_makes_an_admin_who_can_log_in(client: Client) -> None:
    done = await invoke("create-admin", *options(email=" Boss@EXAMPLE.com "))
    assert (done.exit_code, done.stdout) == (0, "Admin Boss@example.com created.\n")
    admin = await admin_of(client, "boss@example.com", PASSWORD)
    assert (await admin.get("/users")).status_code == 200


@pytest.mark.usefixtures("same_database")
async def test_create_admin_takes_the_language_of_the_shell(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "es_MX.UTF-8")
    assert (await invoke("create-admin", *options())).exit_code == 0
    admin = await admin_of(client, "boss@example.com", PASSWORD)
    assert (await admin.get("/users/me")).json()["locale"] == "es"


@pytest.mark.usefixtures("same_database")
async def test_create_admin_asks_for_what_it_was_not_given(client: Client) -> None:
    typed = f"boss@example.com\nBoss\n{PASSWORD}\n"
    done = await invoke("create-admin", typed=typed)
    assert done.exit_code == 0
    assert all(question in done.output for question in ("Email:", "Name:", "Password:"))
    assert PASSWORD not in done.output, "typed in the dark"
    await admin_of(client, "boss@example.com", PASSWORD)


@pytest.mark.usefixtures("same_database")
async def test_create_admin_takes_no_published_password_in_production(set_env: SetEnv) -> None:
    set_env(environment="production")
    refused = await invoke("create-admin", *options(password="Look-At-This-2"))
    assert refused.exit_code != 0
    assert "documentation" in refused.output
    assert "--password" in refused.output
    accepted = await invoke("create-admin", *options(password="Tortoise-Lantern-7"))
    assert accepted.exit_code == 0, accepted.output


@pytest.mark.usefixtures("same_database")
@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        (
            {"password": "short"},
            ["--password", "password_too_short", "password_no_uppercase", "password_no_digit"],
        ),
        ({"password": "Password123"}, ["--password", "password_common"]),
        ({"password": "Boss@example.com1"}, ["--password", "password_personal"]),
        ({"email": "nobody"}, ["--email", "not an e-mail address"]),
        ({"email": "Boss <boss@example.com>"}, ["--email", "not an e-mail address"]),
    ],
)
async def test_create_admin_refuses_what_registration_refuses(
    client: Client, changes: dict[str, str], complaints: list[str]
) -> None:
    refused = await invoke("create-admin", *options(**changes))
    assert refused.exit_code == 2
    shown = " ".join(refused.stderr.replace("│", " ").split())
    for complaint in complaints:
        known = find("en", "validation", complaint)
        assert (fill("en", known, {"min": 8, "max": 128}) if known else complaint) in shown
    assert changes.get("password", PASSWORD) not in refused.output
    form = {"username": "boss@example.com", "password": changes.get("password", PASSWORD)}
    assert (await client.request("POST", "/auth/login", data=form)).status_code == 401


@pytest.mark.usefixtures("same_database")
async def test_create_admin_refuses_an_address_that_is_taken(client: Client) -> None:
    await client.register(email="boss@example.com")
    refused = await invoke("create-admin", *options(email="BOSS@example.com"))
    assert refused.exit_code == 2
    assert "taken" in refused.stderr
    person = await client.person({"email": "boss@example.com"})
    assert (await person.get("/users")).status_code == 403, "still no admin"


# --- seed, purge, openapi, migrate -----------------------------------------------------------


@pytest.mark.usefixtures("same_database")
async def test_seeded_users_and_posts_are_there_for_the_api(client: Client) -> None:
    admin = await client.admin()
    seeded = await invoke("seed", "--users", "7", "--posts", "30")
    assert seeded.exit_code == 0, seeded.output
    assert "Seeding" in seeded.output
    found = (await admin.get("/users", params={"page_size": 100})).json()
    assert found["total"] == 1 + 7
    demo = [user for user in found["items"] if user["email"].startswith("demo")]
    assert len(demo) == 7
    assert {role["name"] for user in demo for role in user["roles"]} == {"user"}
    posts = (await admin.get("/posts", params={"page_size": 100})).json()
    assert posts["total"] == 30
    assert all(1 <= len(post["tags"]) <= 3 for post in posts["items"])
    assert all(
        (post["status"] == "published") == bool(post["published_at"]) for post in posts["items"]
    )
    form = {"username": demo[0]["email"], "password": PASSWORD}
    assert (await client.request("POST", "/auth/login", data=form)).status_code == 401
    again = await invoke("seed", "--users", "1", "--posts", "0")
    assert again.exit_code == 0, "a second run adds to the first"
    assert (await admin.get("/users")).json()["total"] == 1 + 7 + 1


@pytest.mark.parametrize("arguments", [["--users", "0"], ["--posts", "-1"], ["--users", "many"]])
async def test_seeding_nothing_is_refused(set_env: SetEnv, arguments: list[str]) -> None:
    set_env()
    assert (await invoke("seed", *arguments)).exit_code == 2


async def test_seeding_tells_how_far_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "BATCH", 4)
    heard: list[int] = []
    await seeding.seed(database, users=6, posts=9, progress=heard.append)
    assert heard == [4, 2, 4, 4, 1]


async def bury(database: Database, model: type[User | Post], row_id: int, days: float) -> None:
    """Let a row have lain in the trash for some days."""
    async with database.begin() as session:
        await session.execute(
            update(model)
            .where(model.id == row_id)
            .values(deleted_at=utc_now() - timedelta(days=days))
            .execution_options(**{INCLUDE_DELETED: True, "synchronize_session": False})
        )


@pytest.mark.usefixtures("same_database")
async def test_purge_ends_what_was_in_the_trash_too_long_and_nothing_else(
    client: Client, database: Database
) -> None:
    admin = await client.admin()
    ana, eva = await client.user("Ana"), await client.user("Eva")
    old, fresh, live = [await eva.write(title) for title in ("old", "fresh", "live")]
    hers = await ana.write("hers")
    for post in (old, fresh):
        assert (await eva.delete(f"/posts/{post['id']}")).status_code == 204
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(database, Post, old["id"], days=30.01)
    await bury(database, Post, fresh["id"], days=29.99)
    await bury(database, User, ana.id, days=31)
    purged = await invoke("purge")
    assert purged.exit_code == 0
    expected = purged_line(mails=1, posts=2, users=1)
    assert without_other_trash(purged.stdout) == expected
    for gone in (old, hers):
        assert (await admin.post(f"/posts/{gone['id']}/restore")).status_code == 404
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 404
    assert (await admin.post(f"/posts/{fresh['id']}/restore")).status_code == 200
    assert (await client.get(f"/posts/{live['id']}")).status_code == 200
    nothing = await invoke("purge")
    assert without_other_trash(nothing.stdout) == purged_line()


@pytest.mark.usefixtures("same_database")
async def test_purge_tells_of_counts_that_it_repaired(client: Client, database: Database) -> None:
    eva = await client.user("Eva")
    await eva.write(tags=["a", "b"])
    async with database.begin() as session:
        await session.execute(update(Tag).values(post_count=5))
    repaired = without_other_trash((await invoke("purge")).stdout)
    assert repaired == purged_line() + "2 counts of tags mended.\n"
    assert without_other_trash((await invoke("purge")).stdout) == purged_line()


@pytest.mark.usefixtures("same_database")
async def test_purge_keeps_to_the_setting(
    client: Client, database: Database, set_env: SetEnv
) -> None:
    eva = await client.user("Eva")
    post = await eva.write()
    assert (await eva.delete(f"/posts/{post['id']}")).status_code == 204
    await bury(database, Post, post["id"], days=2)
    set_env(trash_days=3)
    kept = without_other_trash((await invoke("purge")).stdout)
    assert kept.startswith("0 mails, 0 posts")
    set_env(trash_days=1)
    purged = without_other_trash((await invoke("purge")).stdout)
    assert purged.startswith("0 mails, 1 posts")


@pytest.mark.usefixtures("same_database")
async def test_purge_forgets_old_events_unless_they_are_kept_for_ever(
    database: Database, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch."""
    monkeypatch.setattr(purging, "MAX_BATCH", 2)
    ages = [1, 9, 11, 364, 366, 367, 368]
    async with database.begin() as session:
        for days in ages:
            moment = utc_now() - timedelta(days=days)
            session.add(AuditEvent(act=AuditAct.login_failed, created_at=moment))
    outputs = []
    for days in (0, 365, 10, 10):
        set_env(audit_days=days)
        counts = (await invoke("purge")).stdout.removesuffix(" purged.\n").split(", ")
        outputs += [each for each in counts if each.endswith(" events")]
    assert outputs == [f"{number} events" for number in (0, 3, 2, 0)]


async def test_openapi_prints_the_document_and_nothing_else(set_env: SetEnv) -> None:
    set_env(docs_enabled=False)
    printed = await invoke("openapi")
    assert printed.exit_code == 0
    document = json.loads(printed.stdout)
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/auth/register" in document["paths"]


@pytest.mark.usefixtures("same_database")
async def test_migrating_indexes_words_that_are_missing(client: Client, database: Database) -> None:
    ana = await client.user("Ana")
    await ana.write("Bread", content="-")
    async with database.begin() as session:
        await session.execute(delete(PostSearch))
    assert (await client.get("/posts", params={"q": "bread"})).json()["total"] == 0
    migrated = await invoke("migrate")
    assert migrated.exit_code == 0
    assert "Words of 1 rows indexed." in migrated.stderr
    assert (await client.get("/posts", params={"q": "bread"})).json()["total"] == 1


@pytest.mark.usefixtures("same_database")
async def test_migrate_is_harmless_on_a_database_that_is_up_to_date(client: Client) -> None:
    account = await client.register()
    migrated = await invoke("migrate")
    assert migrated.exit_code == 0, migrated.output
    assert await client.login(account["email"])


async def test_migrate_makes_the_tables_and_the_first_start_needs_nothing_else(
    tmp_path: Path,
) -> None:
    """As people run it: a process of its own, in an empty folder."""
    env = environment(data_dir=tmp_path / "data")
    status, _, complaint = await run_command("migrate", cwd=tmp_path, env=env)
    assert status == 0, complaint
    status, out, complaint = await run_command("purge", cwd=tmp_path, env=env)
    assert status == 0, complaint
    assert without_other_trash(out) == purged_line()


async def test_a_command_without_tables_fails(set_env: SetEnv) -> None:
    set_env()
    result = await invoke("purge")
    assert result.exit_code == 1
    message = "the tables are missing or of an older version: run scripts/migrate first"
    assert str(result.exception) == f"cimiento: {message}"


async def test_no_command_at_all_shows_the_help(set_env: SetEnv) -> None:
    set_env()
    shown = await invoke()
    commands = ("run", "serve", "migrate", "create-admin", "seed", "purge", "openapi")
    assert all(command in shown.output for command in commands)

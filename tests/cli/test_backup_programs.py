"""Backups by the servers' own programs: how they are called, without exposing a password.

The programs here are ours, and write down what they hear; `tests/cli/test_backup.py` has
the real ones.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from app.cli import backup
from app.cli.backup import BackupError, mariadb, store_of
from app.cli.backup.contents import Contents
from app.db.migrations import columns_at, revisions
from tests.support.commands import SetEnv, invoke
from tests.support.database_programs import OLD, heard, install
from tests.support.schema import connected, empty_database, tables

NASTY = "p\"a'#\\ s;%$"
NEW = "mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)"
MYSQL = "mysqldump  Ver 8.0.39 for Linux on x86_64 (MySQL Community Server - GPL)"


DUMPED = {
    "mysql": "echo '-- MariaDB dump'; echo '-- Dump completed on'",
    "postgresql": "printf PGDMP",
}
DRIVERS = {"mysql": "+aiomysql", "postgresql": "+psycopg"}
PROGRAMS = {"mysql": ("mariadb-dump", "mariadb"), "postgresql": ("pg_dump",)}


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_programs_that_are_missing_are_named(programs: Path, kind: str, tmp_path: Path) -> None:
    store = store_of(make_url(f"{kind}{DRIVERS[kind]}://u:p@db.example:9/x"))
    with pytest.raises(BackupError, match=f"^{PROGRAMS[kind][0]} is not installed: it comes with"):
        store.dump(tmp_path / "file")
    assert [*programs.iterdir()] == []


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_no_command_line_holds_a_password(programs: Path, kind: str, tmp_path: Path) -> None:
    for name in PROGRAMS[kind]:
        install(programs, name, DUMPED[kind])
    url = make_url(f"{kind}{DRIVERS[kind]}://u@db.example:9/x").set(password=NASTY)
    store = store_of(url)
    store.dump(tmp_path / "file")
    if kind == "mysql":
        store.load(tmp_path / "file")
    lines = heard(programs).splitlines()
    called = [line for line in lines if line.startswith("-") and not line.startswith("-rw")]
    assert len(called) == (3 if kind == "mysql" else 1), lines
    if kind == "mysql":
        assert all(" x " in line and line.endswith(" []") for line in called)
        assert 'password="p\\"a\'#\\\\ s;%$"' in lines
        assert {'user="u"', 'host="db.example"', 'port="9"'} <= set(lines)
        assert 'ssl-verify-server-cert="0"' in lines
        assert all(line.startswith("-rw-------") for line in lines if line.startswith("-rw"))
    else:
        connecting = [line for line in called if "--dbname" in line]
        assert len(connecting) == 1
        assert all("host=db.example" in line for line in connecting)
        assert all(line.endswith(f"[{NASTY}]") for line in connecting)
        assert not any(NASTY in line.removesuffix(f"[{NASTY}]") for line in called)


def options_passed(programs: Path, options: str, version: str, folder: Path) -> dict[str, str]:
    """The options about TLS, and where to, that a program finds in its file."""
    install(programs, "mysqldump", DUMPED["mysql"], version=version)
    store_of(make_url(f"mysql+aiomysql://db.example/x?{options}")).dump(folder / "file")
    lines = [line.partition("=") for line in heard(programs).splitlines()]
    (programs / "heard").unlink()
    names = ("ssl", "socket", "protocol")
    return {name: value.strip('"') for name, _, value in lines if name.startswith(names)}


@pytest.mark.parametrize(
    ("options", "old", "new", "mysql"),
    [
        ("", {"ssl-verify-server-cert": "0"}, {"ssl-verify-server-cert": "0"}, {}),
        (
            "ssl=false",
            {"ssl": "0", "ssl-verify-server-cert": "0"},
            {"ssl": "0", "ssl-verify-server-cert": "0"},
            {"ssl-mode": "DISABLED"},
        ),
        (
            "sslmode=require&ssl_cert=/c.pem&ssl_key=/k.pem&ssl_cipher=HIGH",
            {"ssl": "1", "ssl-verify-server-cert": "0"},
            {"ssl": "1", "ssl-verify-server-cert": "0"},
            {"ssl-mode": "REQUIRED"},
        ),
        # An authority that is not to be looked at would be, by some.
        (
            "ssl_ca=/ca.pem&ssl_verify_cert=false",
            {"ssl": "1", "ssl-verify-server-cert": "0"},
            {"ssl": "1", "ssl-verify-server-cert": "0"},
            {"ssl-mode": "REQUIRED"},
        ),
        (
            "ssl_ca=/ca.pem",
            {"ssl": "1", "ssl-ca": "/ca.pem", "ssl-verify-server-cert": "0"},
            {"ssl": "1", "ssl-ca": "/ca.pem", "ssl-verify-server-cert": "1"},
            {"ssl-mode": "VERIFY_CA", "ssl-ca": "/ca.pem"},
        ),
        (
            "ssl_capath=/certs&tls=true",
            {"ssl": "1", "ssl-capath": "/certs", "ssl-verify-server-cert": "1"},
            {"ssl": "1", "ssl-capath": "/certs", "ssl-verify-server-cert": "1"},
            {"ssl-mode": "VERIFY_IDENTITY", "ssl-capath": "/certs"},
        ),
        (
            "sslmode=verify-ca",
            {"ssl": "1", "ssl-verify-server-cert": "1"},
            {"ssl": "1", "ssl-verify-server-cert": "1"},
            {"ssl-mode": "VERIFY_CA", "ssl-ca": "/of/the/machine.pem"},
        ),
    ],
)
def test_programs_are_told_what_the_url_asks_for(
    options: str,
    old: dict[str, str],
    new: dict[str, str],
    mysql: dict[str, str],
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = SimpleNamespace(cafile="/of/the/machine.pem")
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: known)
    given = {"ssl-cert": "/c.pem", "ssl-key": "/k.pem", "ssl-cipher": "HIGH"}
    rest = {"protocol": "TCP"} | (given if "ssl_cert" in options else {})
    for version, expected in ((OLD, old), (NEW, new), (MYSQL, mysql)):
        assert options_passed(programs, options, version, tmp_path) == expected | rest


def test_a_socket_is_used_where_the_url_names_one(programs: Path, tmp_path: Path) -> None:
    """By default `localhost` would be one of the program's own choice, of another server maybe."""
    found = options_passed(programs, "unix_socket=/run/m.sock", MYSQL, tmp_path)
    assert found == {"socket": "/run/m.sock", "protocol": "SOCKET"}


def test_no_password_is_given_where_there_is_none(programs: Path, tmp_path: Path) -> None:
    for name in PROGRAMS["postgresql"]:
        install(programs, name, DUMPED["postgresql"])
    store_of(make_url("postgresql+psycopg://u@db.example/x?sslmode=require")).dump(tmp_path / "f")
    assert "sslmode=require" in heard(programs)
    assert all(line.endswith("[]") for line in heard(programs).splitlines())


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_what_a_program_complains_of_is_passed_on(
    programs: Path, kind: str, tmp_path: Path
) -> None:
    name = PROGRAMS[kind][0]
    install(programs, name, "echo first >&2; echo server version mismatch >&2; exit 1")
    with pytest.raises(BackupError, match=f"^{name} failed: first server version mismatch$"):
        store_of(make_url(f"{kind}{DRIVERS[kind]}://db.example/x")).dump(tmp_path / "file")


def test_what_was_there_goes_with_what_comes(programs: Path, tmp_path: Path) -> None:
    """In one go of the program that writes: before it, nothing is dropped."""
    install(programs, "mariadb", f"/bin/cat >> {programs}/heard")
    (tmp_path / "file").write_text("CREATE ...;\n")
    dropping = ["users", 'a`"b']
    store_of(make_url("mysql+aiomysql://h/x")).load(tmp_path / "file", dropping=dropping)
    script = heard(programs)
    assert "--execute=SELECT 1" in script.partition("DROP")[0]
    assert 'DROP TABLE IF EXISTS `users`, `a``"b`;\nCREATE ...;\n' in script


def test_what_is_fed_is_no_command_to_the_client(programs: Path, tmp_path: Path) -> None:
    """Whatever the file says: each option alone would do, and not every client has the first."""
    install(programs, "mysql", "/bin/cat > /dev/null")
    (tmp_path / "file").write_text("\\! touch canary\n")
    store_of(make_url("mysql+aiomysql://h/x")).load(tmp_path / "file")
    called = [line for line in heard(programs).splitlines() if line.startswith("--defaults-file")]
    assert len(called) == 2
    for option in ("--loose-sandbox", "--binary-mode", "--local-infile=0"):
        assert all(f" {option} " in line for line in called)


def test_a_database_that_lets_nobody_in_loses_nothing(programs: Path, tmp_path: Path) -> None:
    install(programs, "mariadb", f"/bin/cat >> {programs}/heard; echo denied >&2; exit 1")
    with pytest.raises(BackupError, match=r"^mariadb failed: denied$"):
        store_of(make_url("mysql+aiomysql://h/x")).load(tmp_path / "file", dropping=["users"])
    assert "DROP" not in heard(programs)


def test_a_load_that_failed_tells_what_it_left(programs: Path, tmp_path: Path) -> None:
    # They stop reading at once, with more to come than a pipe holds.
    fails = "case $* in *SELECT*) ;; *) echo broken >&2; exit 1;; esac"
    install(programs, "mariadb", fails)
    (tmp_path / "file").write_bytes(b" " * 2**20)
    with pytest.raises(BackupError, match=r"^mariadb failed: broken -- .* empty or incomplete"):
        store_of(make_url("mysql+aiomysql://h/x")).load(tmp_path / "file")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_could_not_be_read_to_its_end_is_not_committed(
    database_url: str, programs: Path, tmp_path: Path
) -> None:
    sql = "CREATE TABLE half (id integer);"
    listing = "1; 2 3 TABLE public half owner"
    lists = f'case $1 in --list) echo "{listing}"; exit 0;; esac'
    install(programs, "pg_restore", lists, f'echo "{sql}"; echo unreadable >&2; exit 1')
    (tmp_path / "file").touch()
    with empty_database(database_url, tmp_path) as url:
        with connected(url) as connection:
            connection.exec_driver_sql("CREATE TABLE kept (id int)")
        with pytest.raises(BackupError, match=r"^pg_restore failed: unreadable -- .* as it was$"):
            store_of(make_url(url)).load(tmp_path / "file", dropping=["kept"])
        with connected(url) as connection:
            assert tables(connection) == {"kept"}


def test_the_dump_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"PGDMP")
    with pytest.raises(BackupError, match="is no backup of MariaDB"):
        store_of(make_url("mysql+aiomysql://db.example/x")).check(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"-- MariaDB dump\n-- Dump completed\n")
    found = store_of(make_url("mysql+aiomysql://db.example/x")).check(tmp_path / "file")
    assert found == Contents({}, None)
    (tmp_path / "file").write_bytes(b"-- MariaDB dump\n")
    with pytest.raises(BackupError, match="is cut off"):
        store_of(make_url("mysql+aiomysql://db.example/x")).check(tmp_path / "file")
    with pytest.raises(BackupError, match="is no backup of PostgreSQL"):
        store_of(make_url("postgresql+psycopg://db.example/x")).check(tmp_path / "file")


async def test_a_database_that_does_not_answer_is_a_line_not_a_trace(
    set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = Contents(columns_at("head"), max(revisions()))
    monkeypatch.setattr(mariadb.MariaDb, "check", lambda *_: contents)
    (tmp_path / "file").touch()
    set_env(database_url="mysql://u:hidden@127.0.0.1:1/x")
    refused = await invoke("restore", str(tmp_path / "file"))
    assert str(refused.exception).startswith("cimiento: the database refuses: ")
    assert "hidden" not in str(refused.exception)


async def test_a_database_that_fails_midway_is_a_line_too(
    set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("lost\non the way"))

    monkeypatch.setattr(backup, "back_up", fails)
    set_env()
    refused = await invoke("backup", str(tmp_path / "file"))
    assert str(refused.exception) == "cimiento: the database refuses: lost on the way"

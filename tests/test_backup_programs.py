"""Backups by the programs of the servers: how these are called, without a password to be read.

The programs here are ours, and write down what they hear; `test_backup.py` has the real ones.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.backups import BackupError, mariadb, store_of
from app.backups.contents import Contents
from app.migrations import columns_at, revisions
from tests.support.commands import SetEnv, invoke
from tests.support.schema import connected, empty_database, tables

NASTY = "p\"a'#\\ s;%$"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all the programs there are: each notes down how it was called."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, *lines: str) -> None:
    """A program that writes down its arguments, the password it was given, and what it is fed."""
    program = folder / name
    heard = folder / "heard"
    body = [
        f'echo "$@" "[$PGPASSWORD]" >> {heard}',
        f'case $1 in --defaults-file=*) f=${{1#*=}}; /bin/ls -l "$f" >> {heard};'
        f' /bin/cat "$f" >> {heard};; esac',
        *lines,
    ]
    program.write_text("#!/bin/sh\n" + "\n".join(body) + "\n")
    program.chmod(0o755)


def heard(folder: Path) -> str:
    return (folder / "heard").read_text()


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


def test_tls_is_demanded_where_the_url_names_an_authority(programs: Path, tmp_path: Path) -> None:
    install(programs, "mysqldump", DUMPED["mysql"])
    url = make_url("mysql+aiomysql://db.example/x?ssl_ca=/etc/ca.pem&unix_socket=/run/m.sock")
    store_of(url).dump(tmp_path / "file")
    lines = heard(programs).splitlines()
    assert {'ssl-ca="/etc/ca.pem"', 'ssl-verify-server-cert="1"', 'socket="/run/m.sock"'} <= set(
        lines
    )
    assert not any(line.startswith(("password", "user")) for line in lines)


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


# --- PostgreSQL's driver -----------------------------------------------------------------------


class Recorder:
    """A connection that writes down what it is given, in the place of the driver's."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended = ""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.ended = "rolled back" if kind else "committed"

    def cursor(self) -> Recorder:
        return self

    def execute(self, statement: bytes) -> None:
        if b"broken" in statement:
            raise psycopg.errors.SyntaxError("broken\nLINE 1: broken")
        self.heard.append(statement)

    def copy(self, statement: bytes) -> Recorder:
        self.heard.append(statement)
        return Recorder.into(self.heard)

    @classmethod
    def into(cls, heard: list[bytes]) -> Recorder:
        made = cls()
        made.heard = heard
        return made

    def write(self, row: bytes) -> None:
        self.heard.append(row)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    def connect(conninfo: str, *, password: str | None) -> Recorder:
        assert conninfo == "host=h dbname=x"
        assert password is None
        return recorder

    monkeypatch.setattr(psycopg, "connect", connect)
    return recorder


ARCHIVE = """
cat > /dev/null
case "$*" in
--list) printf '; 1\\n7; 1259 1 TABLE public users me\\n8; 1255 1 FUNCTION public evil() me\\n';;
*--use-list*) for each; do :; done; cat "${each#--use-list=}" >> HEARD
  printf '\\\\restrict k3y\\nSET lock_timeout = 0;\\n'
  printf 'CREATE TABLE public.users (\\n    id bigint,\\n    "a""b" integer\\n);\\n'
  printf 'COPY public.users (id, "a""b") FROM stdin;\\n\\\\\\\\! one\\n\\\\.\\nCREATE SCHEMA x;\\n'
  printf 'COPY public.alembic_version (version_num) FROM stdin;\\n0003\\n\\\\.\\n'
  printf '\\\\unrestrict k3y\\n';;
esac
"""


@pytest.fixture
def archive(programs: Path, tmp_path: Path) -> Path:
    """An archive, read by a program of ours."""
    lines = ARCHIVE.replace("HEARD", f"{programs}/heard").replace("cat ", "/bin/cat ")
    install(programs, "pg_restore", *lines.splitlines())
    (tmp_path / "file").write_bytes(b"PGDMP")
    return tmp_path / "file"


def test_an_archive_says_what_it_holds(archive: Path) -> None:
    found = store_of(make_url("postgresql+psycopg://h/x")).check(archive)
    assert found == Contents({"users": {"id", 'a"b'}}, "0003")


def test_an_archive_is_run_by_the_driver_in_one_transaction(
    archive: Path, programs: Path, driver: Recorder
) -> None:
    store = store_of(make_url("postgresql+psycopg://h/x"))
    store.load(archive, dropping=["users", 'a`"b'])
    assert driver.heard == [
        b"SET LOCAL lock_timeout='3s'",
        b'DROP TABLE "users", "a`""b" CASCADE',
        b"SET lock_timeout = 0;\n"
        b'CREATE TABLE public.users (\n    id bigint,\n    "a""b" integer\n);\n',
        b'COPY public.users (id, "a""b") FROM stdin;\n',
        b"\\\\! one\n",
        b"CREATE SCHEMA x;\n",
        b"COPY public.alembic_version (version_num) FROM stdin;\n",
        b"0003\n",
        b"",
    ]
    assert driver.ended == "committed"
    assert "FUNCTION" not in heard(programs)
    assert "TABLE public users" in heard(programs)


def test_what_the_driver_complains_of_is_passed_on(
    archive: Path, programs: Path, driver: Recorder
) -> None:
    install(programs, "pg_restore", "echo 'CREATE SCHEMA broken;'")
    with pytest.raises(BackupError, match=r"^PostgreSQL failed: broken\n.*-- the database is as"):
        store_of(make_url("postgresql+psycopg://h/x")).load(archive)
    assert driver.ended == "rolled back"


def test_the_rows_of_an_archive_that_is_cut_off_end_it(
    archive: Path, programs: Path, driver: Recorder
) -> None:
    install(
        programs, "pg_restore", "printf 'COPY x (y) FROM stdin;\\none\\n'; echo cut >&2; exit 1"
    )
    with pytest.raises(BackupError, match=r"pg_restore failed: cut -- the database is as it was$"):
        store_of(make_url("postgresql+psycopg://h/x")).load(archive)
    assert driver.ended == "rolled back"
    install(programs, "pg_restore", "printf 'COPY x (y) FROM stdin;\\none\\n'")
    with pytest.raises(BackupError, match="ends among the rows of a table -- the database is as"):
        store_of(make_url("postgresql+psycopg://h/x")).load(archive)
    assert driver.ended == "rolled back"

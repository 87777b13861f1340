"""Restoring a PostgreSQL archive through the driver: its statements, rows, errors and schema."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.cli.backup import BackupError, store_of
from app.cli.backup.contents import Contents
from tests.support.database_programs import heard, install


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
        recorder = cls()
        recorder.heard = heard
        return recorder

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


class Answering:
    """A connection to PostgreSQL that answers each question with one row."""

    def __init__(self, row: tuple[str] | None) -> None:
        self._row = row

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, _: str) -> Answering:
        return self

    def fetchone(self) -> tuple[str] | None:
        return self._row


IN_A_SCHEMA = make_url("postgresql+psycopg://root@127.0.0.1/app?options=-csearch_path%3Dapp")


def test_a_schema_of_the_url_is_backed_up_alone(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs, "pg_dump", "echo PGDMP")
    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: Answering(('od"d',)))
    store_of(IN_A_SCHEMA).dump(tmp_path / "dump")
    assert '--schema="od""d"' in heard(programs)
    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: Answering(None))
    store_of(IN_A_SCHEMA).dump(tmp_path / "dump")
    assert heard(programs).count("--schema") == 1


def test_a_backup_goes_into_the_schema_it_is_of(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "215; 1259 16385 TABLE other alembic_version root"
    install(programs, "pg_restore", f"echo '{entry}'")
    source = tmp_path / "backup"
    source.write_bytes(b"PGDMP")
    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: Answering(("app",)))
    with pytest.raises(BackupError, match="is of the schema other, DATABASE_URL means app"):
        store_of(IN_A_SCHEMA).load(source)


def test_a_schema_that_cannot_be_asked_for_is_one_line(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs, "pg_dump", "echo PGDMP")

    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("nobody there")

    monkeypatch.setattr(psycopg, "connect", refuse)
    with pytest.raises(BackupError, match="PostgreSQL failed: nobody there"):
        store_of(IN_A_SCHEMA).dump(tmp_path / "dump")

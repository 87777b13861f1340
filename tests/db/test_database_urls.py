"""Database URLs: known options, common mistakes, and the messages about them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.config import load_settings
from app.db.engine import connect
from app.db.tls import Mode, tls_of, without_tls
from app.db.urls import database_url
from tests.conftest import make_settings
from tests.support.certificates import Authority
from tests.support.settings import forget_settings, refusal, set_env

SERVER = "mysql://ana:hunter2@db.example.com/app"
KINDS = {
    "sqlite": "sqlite:///x.db",
    "mysql": SERVER,
    "mariadb": SERVER.replace("mysql", "mariadb"),
    "postgresql": "postgresql://ana:hunter2@db.example.com/app",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


def refused(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """The line that the settings are refused with, which shows no password."""
    set_env(monkeypatch, DATABASE_URL=url)
    line = refusal()
    assert "DATABASE_URL" in line
    assert "hunter2" not in line
    return line


# --- Options of all kinds --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_options_are_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    line = refused(monkeypatch, f"{KINDS[kind]}?sslmod=hunter2&pool_size=5&a%20b=1")
    assert "DATABASE_URL: unknown options: sslmod, pool_size, (unreadable); DATABASE_POOL" in line


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("sqlite", "mode=ro", "unknown options: mode; add uri=true, and begin the path with file:"),
        ("sqlite", "timeout=soon", "timeout has a value that it cannot have"),
        ("sqlite", "check_same_thread=perhaps", "check_same_thread has a value"),
        ("sqlite", "detect_types=x", "detect_types has a value"),
        ("mysql", "connect_timeout=0", "connect_timeout has a value"),
        ("mysql", "connect_timeout=9&connect_timeout=8", "connect_timeout is given more than once"),
        ("mysql", "ssl_ca=/a&ssl_ca=/b", "ssl_ca is given more than once"),
        ("mysql", "user=a&user=b", "unknown options: user"),
        ("mysql", "sql_mode=ANSI&init_command=x", "sql_mode, init_command; the app sets these"),
        ("postgresql", "schema=public", "schema; write options=-csearch_path%3DNAME instead"),
        ("postgresql", "search_path=a", "search_path; write options=-csearch_path%3DNAME instead"),
        ("postgresql", "currentSchema=a", "currentSchema; write options=-csearch_path%3DNAME"),
        ("postgresql", "ssl=true", "ssl; write sslmode=require instead"),
        ("postgresql", "ssl_ca=/x", "ssl_ca; write sslrootcert= instead"),
        ("postgresql", "sslmode=REQUIRED", "sslmode has a value that it cannot have"),
        ("postgresql", "connect_timeout=soon", "connect_timeout has a value"),
        ("postgresql", "sslmode=require&sslmode=disable", "sslmode is given more than once"),
        ("mysql", "ssl_ca=", "ssl_ca has no value"),
        ("mysql", "ssl_ca=&charset=utf8mb4", "ssl_ca has no value"),
        ("postgresql", "sslmode", "sslmode has no value"),
        ("mysql", "ssl_ca=&user=a@b", "ssl_ca has no value"),
        ("postgresql", "sslkey=/k&sslpassword=x", "sslpassword; keep secrets out of options"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, kind: str, options: str, said: str
) -> None:
    assert said in refused(monkeypatch, f"{KINDS[kind]}?{options}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:p@h:99999/x", "the port has to be a number from 1 to 65535"),
        ("postgresql://u:p@h:0/x", "the port has to be a number from 1 to 65535"),
        ("mysql://u:p@h/db&ssl=true", "options begin with ?"),
        ("mysql://u:p@h/db;ssl=true", "options begin with ?"),
        ("mysql://u:a?b@h/db?ssl_ca=", "ssl_ca has no value"),
    ],
)
def test_a_url_that_means_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    assert said in refused(monkeypatch, url)


@pytest.mark.parametrize("url", ["sqlite://data/x.db", "sqlite://ana:hunter2@/x.db"])
def test_a_file_that_looks_like_a_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert "sqlite:///data/x.db" in refused(monkeypatch, url)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sqlite", "timeout=20&check_same_thread=false&cached_statements=10&detect_types=-1"),
        ("sqlite", "uri=true&mode=rwc&cache=private"),
        ("mysql", "charset=utf8mb4&connect_timeout=9&unix_socket=/run/x.sock&program_name=x"),
        ("postgresql", "sslmode=verify-full&sslrootcert=/x/ca.pem&application_name=x"),
        ("postgresql", "connect_timeout=9&target_session_attrs=read-write&keepalives=1"),
        ("postgresql", "options=-csearch_path%3Dx&client_encoding=utf8&channel_binding=prefer"),
        ("postgresql", "host=a:1&host=b:2&service=x"),
    ],
)
def test_what_drivers_know_is_left_as_it_is(kind: str, options: str) -> None:
    given = make_url(f"{KINDS[kind]}?{options}")
    assert database_url(str(given)).query == given.query


def test_what_texts_are_is_no_question_any_more() -> None:
    assert database_url(f"{SERVER}?charset=utf8&use_unicode=1").query == {"charset": "utf8"}


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_users_and_passwords_among_the_options_are_put_where_they_are_hidden(kind: str) -> None:
    name = {"mysql": "db", "postgresql": "dbname"}[kind]
    url = database_url(f"{kind}://db.example.com?user=ana&password=hunter2&{name}=app")
    assert (url.username, url.password, url.database) == ("ana", "hunter2", "app")
    assert "hunter2" not in repr(url)
    assert not url.query


@pytest.mark.parametrize(("options", "seconds"), [("", 3), ("?connect_timeout=9", 9)])
async def test_how_long_connecting_may_take_is_up_to_the_url(
    options: str, seconds: int, tmp_path: Path
) -> None:
    database = connect(make_settings(KINDS["mysql"] + options, tmp_path))
    seen: dict[str, object] = {}

    @event.listens_for(database.engine.sync_engine, "do_connect")
    def note(*arguments: Any) -> None:
        seen.update(arguments[3])
        raise pymysql.err.OperationalError(2003, "away")

    with pytest.raises(DBAPIError):
        await database.engine.connect()
    assert seen["connect_timeout"] == seconds
    await database.dispose()


# --- TLS to MariaDB and MySQL ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ("", None),
        ("charset=utf8mb4", None),
        ("ssl=false", Mode.DISABLED),
        ("useSSL=0", Mode.DISABLED),
        ("ssl-mode=DISABLED", Mode.DISABLED),
        ("sslmode=disable&ssl_verify_cert=false", Mode.DISABLED),
        ("ssl_verify_cert=false", None),
        ("sslMode=PREFERRED", Mode.PREFERRED),
        ("sslmode=allow", Mode.PREFERRED),
        ("sslmode=prefer", Mode.PREFERRED),
        ("ssl=true", Mode.REQUIRED),
        ("ssl=1", Mode.REQUIRED),
        ("useSSL=true&requireSSL=true", Mode.REQUIRED),
        ("ssl_mode=required", Mode.REQUIRED),
        ("ssl=require&sslmode=prefer", Mode.REQUIRED),
        ("tls=skip-verify", Mode.REQUIRED),
        ("tls=preferred", Mode.PREFERRED),
        ("tls=true", Mode.VERIFY_IDENTITY),
        ("sslmode=verify-ca", Mode.VERIFY_CA),
        ("ssl-mode=VERIFY_CA", Mode.VERIFY_CA),
        ("ssl-mode=VERIFY_IDENTITY", Mode.VERIFY_IDENTITY),
        ("sslmode=verify-full", Mode.VERIFY_IDENTITY),
        ("ssl_cert=/x.pem", Mode.REQUIRED),
        ("ssl_ca=/x.pem", Mode.VERIFY_CA),
        ("ssl_capath=/x&ssl=true", Mode.VERIFY_CA),
        ("ssl_ca=/x.pem&sslmode=prefer", Mode.VERIFY_CA),
        ("ssl_ca=/x.pem&ssl_verify_cert=false", Mode.REQUIRED),
        ("ssl_ca=/x.pem&ssl_verify_cert=true", Mode.VERIFY_CA),
        ("ssl_ca=/x.pem&ssl_verify_identity=false", Mode.VERIFY_CA),
        ("ssl_ca=/x.pem&ssl_check_hostname=true", Mode.VERIFY_IDENTITY),
        ("ssl_ca=/x.pem&ssl_verify_identity=true", Mode.VERIFY_IDENTITY),
        ("ssl_verify_cert=1", Mode.VERIFY_CA),
        ("ssl-verify-server-cert=1", Mode.VERIFY_IDENTITY),
    ],
)
def test_whatever_it_is_called_it_is_understood(options: str, mode: Mode | None) -> None:
    tls = tls_of(make_url(f"{SERVER}?{options}"))
    assert tls.mode is mode
    assert tls.is_required is (mode is not None and mode >= Mode.REQUIRED)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ssl=perhaps", "ssl must be one of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_ID"),
        ("ssl-mode=hunter2", "ssl-mode must be one of DISABLED"),
        ("ssl_verify_cert=perhaps", "ssl_verify_cert must be true or false"),
        ("ssl_ca=/x.pem&ssl=false", "ssl_ca and ssl contradict each other"),
        ("ssl_cert=/x.pem&ssl-mode=DISABLED", "ssl_cert and ssl-mode contradict each other"),
        ("ssl=true&tls=false", "ssl and tls contradict each other"),
        ("ssl-mode=VERIFY_CA&ssl_verify_cert=0", "ssl-mode and ssl_verify_cert contradict"),
        ("sslmode=verify-full&ssl_verify_identity=false", "sslmode and ssl_verify_identity"),
        ("ssl_key=/x.pem", "ssl_key needs ssl_cert"),
        ("ssl_ca=/nope.pem", "ssl_ca is not usable: /nope.pem: No such file or directory"),
        ("ssl_ca=/nope.pem&ssl_verify_cert=false", "ssl_ca is not usable: /nope.pem: No such"),
        ("ssl_ca=/nope%00.pem", "ssl_ca is not usable:"),
        ("ssl_capath=/nope", "ssl_capath is not usable: /nope: No such file or directory"),
        ("ssl_cert=/a.pem&ssl_key=/b.pem", "ssl_cert or ssl_key is not usable: /a.pem /b.pem: No"),
        ("ssl=true&ssl_cipher=NONE-OF-ALL", "ssl_cipher is not usable: NONE-OF-ALL:"),
    ],
)
def test_tls_that_cannot_be_meant_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    assert said in refused(monkeypatch, f"{SERVER}?{options}")


def test_files_are_read_when_the_settings_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    locked, locked_key = authority.issue("locked", password=b"hunter2")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("hunter2")
    for files, said in (
        (f"ssl_ca={nothing}", "NO_CERTIFICATE_OR_CRL_FOUND"),
        (f"ssl_ca={tmp_path}", ""),
        (f"ssl_cert={cert}&ssl_key={locked_key}", ""),
        (f"ssl_cert={locked}&ssl_key={key}", "KEY_VALUES_MISMATCH"),
        (f"ssl_cert={cert}", ""),
    ):
        assert f"is not usable: {tmp_path}" in (line := refused(monkeypatch, f"{SERVER}?{files}"))
        assert said in line
    files = f"ssl_ca={authority.file}&ssl_cert={cert}&ssl_key={key}&ssl_capath={tmp_path}"
    set_env(monkeypatch, DATABASE_URL=f"{SERVER}?{files}&ssl_cipher=HIGH")
    url = load_settings().url
    context = tls_of(url).context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert not without_tls(url).query


def test_without_an_authority_those_of_the_machine_count() -> None:
    for options, verifies in (("tls=true", True), ("ssl=true", False)):
        context = tls_of(make_url(f"{SERVER}?{options}")).context()
        assert context is not None
        assert context.check_hostname is verifies
        assert context.verify_mode is (ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE)
    assert tls_of(make_url(f"{SERVER}?ssl=false")).context() is None


# --- Option files ----------------------------------------------------------------------------

OPTIONS = """
# A comment.
[client]
  user = ana
  password = "p#1 ; 2"
host=db.example.com
port=3307
database=app
socket=/run/x.sock
ssl-mode=REQUIRED
default-character-set=utf8
[other]
password=x
skip_ssl
"""


def test_an_option_file_is_read_as_the_clients_read_it(tmp_path: Path) -> None:
    (tmp_path / "my.cnf").write_text(OPTIONS)
    option = f"read_default_file={tmp_path}/my.cnf"
    url = database_url(f"mysql://?{option}")
    assert url.render_as_string(hide_password=False) == (
        "mysql+aiomysql://ana:p%231 %3B 2@db.example.com:3307/app"
        "?ssl-mode=REQUIRED&unix_socket=%2Frun%2Fx.sock"
    )
    url = database_url(f"mysql://bea@localhost:1/b?{option}&read_default_group=other&charset=utf8")
    assert (url.username, url.password, url.host, url.port) == ("bea", "x", "localhost", 1)
    assert url.query == {"ssl": "false", "charset": "utf8"}
    assert database_url("mysql://bea@h/b?read_default_group=x") == database_url("mysql://bea@h/b")


def test_an_option_file_that_is_none_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "my.cnf"
    url = f"mysql://?read_default_file={file}"
    assert f"read_default_file is not readable: {file}: No such" in refused(monkeypatch, url)
    file.write_text("password=hunter2")
    assert f"read_default_file is no option file: {file}" in refused(monkeypatch, url)
    file.write_text("[client]\n!include /etc/other.cnf\n")
    assert "includes other files" in refused(monkeypatch, url)
    file.write_text("[client]\nssl-mode=REQUIRED\n")
    missing = refused(monkeypatch, f"{url}&read_default_group=clinet")
    assert f"read_default_file has no group [clinet]: {file}" in missing
    file.write_text("[client]\nloose_ssl_mode=VERIFY_IDENTITY\nenable-ssl\n")
    assert tls_of(database_url(url)).mode is Mode.VERIFY_IDENTITY
    file.write_bytes(b"[client]\npassword=\xff")
    assert f"read_default_file is no option file: {file}" in refused(monkeypatch, url)
    file.write_text("[client]\nssl-ca=/nope.pem\nport=x\n")
    assert "ssl_ca is not usable: /nope.pem" in refused(monkeypatch, url)

"""What MariaDB's driver sends before it is let in: nothing secret that is not encrypted, where
TLS is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiomysql import OperationalError
from pymysql._auth import scramble_native_password
from pymysql.constants.CR import CR_CONN_HOST_ERROR, CR_SERVER_LOST, CR_SSL_CONNECTION_ERROR
from pymysql.constants.ER import ACCESS_DENIED_ERROR
from sqlalchemy.engine import make_url

from app.db import aiomysql, mariadb
from app.db.tls import tls_of
from tests.support.certificates import Authority
from tests.support.handshakes import RefusingServer, refusing_server
from tests.support.process import ROOT

PASSWORD = "contraseña €"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_side(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", "127.0.0.1"))
    return context


async def refusal(server: RefusingServer, options: str) -> tuple[int, str]:
    """What the driver is refused with: by the server, if all went well."""
    opener = mariadb.Opener(tls_of(make_url(f"mysql://h/x?{options}")))
    given = {"host": "127.0.0.1", "port": server.port, "user": "ana", "password": PASSWORD}
    with pytest.raises(OperationalError) as refused:
        # The option that SQLAlchemy makes of `ssl_ca`, and one that it leaves as it is.
        await opener(**given, ssl={"ca": "x"}, sslmode="x", connect_timeout=3)
    await opener.dispose()
    number, text = refused.value.args
    return number, text


async def test_nothing_but_the_wish_for_tls_is_sent_before_tls(
    authority: Authority, server_side: ssl.SSLContext
) -> None:
    async with refusing_server(server_side) as server:
        number, _ = await refusal(server, f"ssl_ca={authority.file}&ssl-mode=VERIFY_IDENTITY")
    assert number == ACCESS_DENIED_ERROR
    [(first, wish), (second, login)] = server.heard
    assert (first, second) == (False, True)
    assert len(wish) == 32
    assert login.startswith(wish)
    assert b"ana\0" in login


async def test_passwords_are_sent_as_the_clients_send_them(
    authority: Authority, server_side: ssl.SSLContext
) -> None:
    scrambled = scramble_native_password(PASSWORD.encode(), b"s" * 20)
    for tls, options in ((None, ""), (server_side, f"ssl_ca={authority.file}")):
        async with refusing_server(tls) as server:
            assert (await refusal(server, options))[0] == ACCESS_DENIED_ERROR
        assert scrambled in server.heard[-1][1]
    async with refusing_server(plugin=b"caching_sha2_password") as server:
        assert (await refusal(server, ""))[0] == ACCESS_DENIED_ERROR
    stages = hashlib.sha256(hashlib.sha256(PASSWORD.encode()).digest()).digest()
    known = hashlib.sha256(stages + b"s" * 20).digest()
    first = hashlib.sha256(PASSWORD.encode()).digest()
    assert bytes(a ^ b for a, b in zip(first, known, strict=True)) in server.heard[-1][1]


async def test_an_older_way_to_log_in_begins_with_the_common_one_in_tls(
    authority: Authority, server_side: ssl.SSLContext
) -> None:
    async with refusing_server(server_side, plugin=b"sha256_password") as server:
        assert (await refusal(server, f"ssl_ca={authority.file}"))[0] == ACCESS_DENIED_ERROR
    assert b"mysql_native_password\0" in server.heard[-1][1]


@pytest.mark.parametrize("options", ["ssl=true", "sslmode=verify-ca", "tls=skip-verify"])
async def test_a_server_without_tls_learns_nothing_where_it_is_required(options: str) -> None:
    async with refusing_server() as server:
        number, text = await refusal(server, options)
    assert number == CR_SSL_CONNECTION_ERROR
    assert text == "DATABASE_URL asks for TLS, and the server has none"
    assert server.heard == []


@pytest.mark.parametrize("options", ["", "ssl=false", "sslmode=prefer"])
async def test_a_server_without_tls_will_do_where_it_is_not(options: str) -> None:
    async with refusing_server() as server:
        assert (await refusal(server, options))[0] == ACCESS_DENIED_ERROR
    assert [in_tls for in_tls, _ in server.heard] == [False]


async def test_a_stranger_learns_nothing(tmp_path: Path, server_side: ssl.SSLContext) -> None:
    other = Authority(tmp_path, "other")
    async with refusing_server(server_side) as server:
        number, text = await refusal(server, f"ssl_ca={other.file}")
    assert number == CR_SSL_CONNECTION_ERROR
    assert text.startswith("TLS to 127.0.0.1 failed: ")
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert [in_tls for in_tls, _ in server.heard] == [False]


async def test_what_is_said_before_tls_is_not_taken_for_encrypted(
    authority: Authority, server_side: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker in between could inject messages that the driver takes for the server's."""

    async def slow(connection: mariadb.Connection) -> None:
        await asyncio.sleep(0.03)
        await refuse_unread(connection)

    refuse_unread = mariadb.Connection._refuse_unread
    monkeypatch.setattr(mariadb.Connection, "_refuse_unread", slow)
    async with refusing_server(server_side, hasty=True) as server:
        number, text = await refusal(server, f"ssl_ca={authority.file}")
    assert (number, text) == (CR_SSL_CONNECTION_ERROR, "the server speaks before TLS has begun")


async def test_a_server_that_begins_no_tls_is_given_up(
    authority: Authority, server_side: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.sleep(1)

    monkeypatch.setattr(RefusingServer, "begin_tls", silent)
    async with refusing_server(server_side) as server:
        opener = mariadb.Opener(tls_of(make_url(f"mysql://h/x?ssl_ca={authority.file}")))
        with pytest.raises(OperationalError) as refused:
            await opener(host="127.0.0.1", port=server.port, user="ana", connect_timeout=0.1)
    assert refused.value.args[0] == CR_CONN_HOST_ERROR


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x03\0\0\0\x0a5.", b"\0" * 40])
async def test_what_speaks_something_else_is_told(greeting: bytes) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        opener = mariadb.Opener(tls_of(make_url("mysql://h/x")))
        with pytest.raises(OperationalError) as refused:
            await opener(host="127.0.0.1", port=port, user="ana", connect_timeout=3)
        await opener.dispose()
    assert refused.value.args[0] in (CR_CONN_HOST_ERROR, CR_SERVER_LOST)


# --- Users without a name --------------------------------------------------------------------

_IMPORT = """
import getpass, sys

def getuser():
    raise {error}("no name for this user")

getpass.getuser = getuser
sys.modules.pop("aiomysql", None)
from app.db import mariadb
assert getpass.getuser is getuser
print(mariadb.DriverConnection.__module__)
"""


@pytest.mark.parametrize("error", ["OSError", "KeyError"])
def test_the_driver_needs_no_name_of_the_user(error: str) -> None:
    """As Python 3.13 says that there is none, and as those before it do."""
    command = [sys.executable, "-c", _IMPORT.format(error=error)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("aiomysql.connection\n", 0), ran.stderr


def test_a_user_without_a_name_is_called_unknown() -> None:
    def nameless() -> str:
        raise OSError

    assert aiomysql.user_name(nameless) == "unknown"
    assert aiomysql.user_name(lambda: "ana") == "ana"


async def test_a_connection_in_tls_is_closed_when_goodbye_was_said() -> None:
    said: list[str] = []

    class RecordingWriter:
        transport = SimpleNamespace(close=lambda: said.append("close"))

        def write(self, _: bytes) -> None:
            said.append("quit")

        async def drain(self) -> None:
            pass

        async def wait_closed(self) -> None:
            said.append("closed")

    encryption = mariadb.Encryption(ssl.create_default_context(), is_required=True)
    connection = mariadb.Connection(encryption=encryption)
    connection._writer = RecordingWriter()
    await connection.ensure_closed()
    assert said == ["quit", "close", "closed"]

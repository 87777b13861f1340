"""The doctor looks at Redis and at the mail server."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.cli.doctor import findings, services
from app.cli.doctor.findings import Verdict
from tests.support.commands import SetEnv
from tests.support.diagnosis import diagnose
from tests.support.rate_limits import REDIS_URL, redis_or_skip
from tests.support.settings import GOOD_SECRET
from tests.support.smtp import Sink

OK, WARN, FAIL = Verdict.ok, Verdict.warn, Verdict.fail
CANARY = "canary-p4ssword"
PRODUCTION = {
    "environment": "production",
    "secret_key": GOOD_SECRET,
    "public_url": "https://api.example.org",
    "trusted_hosts": "api.example.org,127.0.0.1",
    "trusted_proxies": "10.0.0.1",
}


# --- Redis ---------------------------------------------------------------------------------------


@asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncIterator[str]:
    """The URL of a Redis of one's own; ended by its own handle."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no redis-server")
        pytest.skip("there is no redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    process = await asyncio.create_subprocess_exec(
        program, *arguments, *options, stdout=asyncio.subprocess.DEVNULL
    )
    client: Redis = Redis.from_url(f"redis://:{CANARY}@127.0.0.1:{port}")
    try:
        async with asyncio.timeout(20):
            while not await _answers(client):  # noqa: ASYNC110 nothing announces it
                await asyncio.sleep(0.02)
        yield f"redis://:{CANARY}@127.0.0.1:{port}"
    finally:
        await client.aclose()
        process.kill()
        await process.wait()


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.info("server"))
    except (OSError, RedisError):
        return False


async def test_a_redis_that_is_full_is_told(set_env: SetEnv, tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--requirepass", CANARY, "--maxmemory", "900kb") as url:
        set_env(redis_url=url)
        found = await diagnose()
    assert found.of("redis", "MiB are used").verdict is FAIL


async def test_a_redis_that_answers_is_well(set_env: SetEnv) -> None:
    async with redis_or_skip():
        set_env(redis_url=REDIS_URL)
        found = await diagnose()
    assert found.of("redis", "Redis ").verdict is OK
    assert FAIL not in found.verdicts("redis")


async def test_a_redis_that_forgets_is_told(set_env: SetEnv, tmp_path: Path) -> None:
    locked = ("--requirepass", CANARY)
    evicts = (*locked, "--maxmemory-policy", "allkeys-lru")
    async with redis_server(tmp_path, *evicts, "--maxmemory", "100mb") as url:
        set_env(redis_url=url)
        found = await diagnose()
        assert found.of("redis", "allkeys-lru").verdict is FAIL
        assert found.of("redis", "appendonly is no").verdict is WARN
        set_env(redis_url=url.replace(CANARY, f"{CANARY}-wrong"))
        wrong = await diagnose()
    assert found.verdicts("redis") == [OK, OK, FAIL, WARN]
    assert [wrong.of("redis").verdict, CANARY in wrong.result.output] == [FAIL, False]
    async with redis_server(tmp_path, *evicts, "--appendonly", "yes") as url:
        set_env(redis_url=url)
        found = await diagnose()
        assert found.verdicts("redis") == [OK, WARN, OK], "without a limit nothing is evicted yet"


async def test_a_redis_that_is_too_old_is_told() -> None:
    info = {"redis_version": "5.0.14", "maxmemory_policy": "noeviction", "maxmemory": 0}
    verdicts = [each.verdict for each in services._judged_redis("x", info | {"aof_enabled": 1})]
    assert verdicts == [WARN, OK, OK]


async def test_a_redis_that_is_away_is_told(set_env: SetEnv, closed_port: int) -> None:
    set_env(redis_url=f"redis://:{CANARY}@127.0.0.1:{closed_port}")
    found = await diagnose()
    assert found.of("redis", f"127.0.0.1:{closed_port}").verdict is FAIL
    assert CANARY not in found.result.output


async def test_a_frozen_redis_is_told_in_time(
    set_env: SetEnv, frozen_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "SECONDS", 0.3)
    set_env(redis_url=f"redis://127.0.0.1:{frozen_port}")
    assert "no answer within 0.3 s" in (await diagnose()).of("redis").message


async def test_workers_that_count_alone_are_told(set_env: SetEnv) -> None:
    set_env(workers=1)
    assert (await diagnose()).of("redis").verdict is OK
    set_env(workers=2)
    assert (await diagnose()).of("redis", "each worker alone").verdict is WARN


# --- Mail ----------------------------------------------------------------------------------------


@pytest.fixture
def mailing(set_env: SetEnv, sink: Sink) -> SetEnv:
    """Settings with the sink as the mail server."""
    set_env(smtp_host="127.0.0.1", smtp_port=sink.port, smtp_tls="none")
    set_env(mail_from="Cimiento <no-reply@cimiento.example>", smtp_timeout_seconds=3)
    return set_env


async def test_a_mail_server_that_takes_us_is_well(mailing: SetEnv, sink: Sink) -> None:
    mailing()
    found = await diagnose()
    assert found.verdicts("mail") == [OK, OK]
    assert found.of("mail", "without login").verdict is OK
    assert (sink.attempts, sink.deliveries) == ([], []), "nothing was sent"


async def test_a_login_that_is_refused_is_told(mailing: SetEnv) -> None:
    mailing(smtp_username="user", smtp_password=CANARY)
    found = await diagnose()
    finding = found.of("mail", "SMTPAuthenticationError")
    assert (finding.verdict, "SMTP_PASSWORD" in (finding.remedy or "")) == (FAIL, True)
    assert CANARY not in found.result.output


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_encryption_that_the_server_does_not_offer_is_told(tls: str, mailing: SetEnv) -> None:
    mailing(smtp_tls=tls)
    finding = (await diagnose()).of("mail", "127.0.0.1:")
    assert (finding.verdict, "SMTP_TLS does not fit" in (finding.remedy or "")) == (FAIL, True)


async def test_a_mail_server_that_is_away_or_silent_is_told(
    mailing: SetEnv, closed_port: int, frozen_port: int
) -> None:
    for port in (closed_port, frozen_port):
        mailing(smtp_port=port, smtp_timeout_seconds=0.3)
        finding = (await diagnose()).of("mail", f"127.0.0.1:{port}")
        assert (finding.verdict, "SMTP_HOST" in (finding.remedy or "")) == (FAIL, True)


async def test_a_sender_and_a_way_that_mails_should_not_have_are_told(mailing: SetEnv) -> None:
    mailing(**PRODUCTION, mail_from="no-reply@example.com")
    found = await diagnose()
    assert found.of("mail", "MAIL_FROM is no-reply@example.com").verdict is WARN
    assert found.of("mail", "in the clear").verdict is WARN

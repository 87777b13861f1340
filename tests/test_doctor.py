"""The doctor looks at settings, files, Redis and the mail server, and keeps secrets to itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from typer.testing import Result

from app.doctor import findings, host, services
from app.doctor.findings import Secrets, Verdict
from tests.conftest import make_settings
from tests.support.commands import SetEnv, invoke
from tests.support.diagnosis import diagnose, migrated_file
from tests.support.gates import REDIS_URL, redis_or_skip
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


# --- The command ---------------------------------------------------------------------------------


def failing(result: Result) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith("fail")]


async def test_people_read_what_is_wrong_and_how_to_mend_it(
    set_env: SetEnv, tmp_path: Path
) -> None:
    set_env(database_url=await asyncio.to_thread(migrated_file, tmp_path))
    result = await invoke("doctor")
    lines = result.stdout.splitlines()
    assert "ok    environment: development, listening on 127.0.0.1" in lines
    at = lines.index("fail  admins: no administrator can log in")
    assert lines[at + 1] == "      -> Run scripts/create-admin."
    assert (result.exit_code, len(failing(result))) == (1, 1)
    assert lines[-1].startswith("1 problem")


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ([], "All well."),
        ([OK, OK], "All well."),
        ([FAIL, OK], "1 problem."),
        ([WARN, WARN], "2 warnings."),
        ([WARN, FAIL, OK, FAIL], "2 problems, 1 warning."),
    ],
)
def test_it_all_is_summed_up(verdicts: list[Verdict], line: str) -> None:
    found = [findings.Finding(verdict, "check", "message") for verdict in verdicts]
    assert findings.summed_up(found) == line


@pytest.mark.parametrize("arguments", [[], ["--json"]])
async def test_settings_that_are_refused_are_a_finding(
    arguments: list[str], set_env: SetEnv
) -> None:
    set_env(database_url=f"oracle://user:{CANARY}@host/x")
    result = await invoke("doctor", *arguments)
    assert result.exit_code == 1
    assert "DATABASE_URL must begin with" in result.stdout
    assert "settings" in result.stdout
    assert CANARY not in result.output


async def test_production_that_is_set_up_well_has_nothing_to_mend(set_env: SetEnv) -> None:
    set_env(**PRODUCTION)
    found = await diagnose()
    for check in ("environment", "addresses", "secrets", "disk"):
        assert set(found.verdicts(check)) == {OK}, check
    assert found.of("mail", "no SMTP_HOST").verdict is WARN


def test_nothing_the_settings_keep_is_shown(tmp_path: Path) -> None:
    secrets = Secrets(
        make_settings(
            f"mysql://user:{CANARY}%2F1@host/x",
            tmp_path,
            redis_url=f"redis://:{CANARY}-2@host",
            smtp_password=f"{CANARY}-3",
            first_admin_password=f"{CANARY}-4",
            secret_key_fallbacks=f"{CANARY}-5-{GOOD_SECRET}",
        )
    )
    for text in ("%2F1", "/1", "-2", "-3", "-4", f"-5-{GOOD_SECRET}"):
        assert secrets.masked(f"before {CANARY}{text} after") == "before *** after"
    assert Secrets(make_settings("sqlite://", tmp_path)).masked("as it is") == "as it is"


async def test_a_check_that_breaks_is_a_finding(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_: object) -> Any:
        raise RuntimeError

    monkeypatch.setattr(host, "CHECKS", {"disk": breaks})
    set_env()
    found = await diagnose()
    assert (found.of("disk").verdict, found.of("disk").message) == (FAIL, "RuntimeError")


# --- Settings and files --------------------------------------------------------------------------


async def test_development_that_others_can_reach_is_told(set_env: SetEnv) -> None:
    for listening, verdict in (("0.0.0.0", WARN), ("127.0.0.1", OK), ("localhost", OK)):
        set_env(host=listening)
        assert (await diagnose()).of("environment").verdict is verdict


async def test_what_production_should_not_have_is_told(set_env: SetEnv) -> None:
    set_env(**PRODUCTION | {"trusted_hosts": "*", "trusted_proxies": "", "public_url": ""})
    set_env(first_admin_password="Tortoise-Lantern-7")
    set_env(rate_limit_enabled=False, rate_limit_disabled_on_purpose=True)
    found = await diagnose()
    assert found.failed() == [found.of("database")]
    for check, message in (
        ("environment", "FIRST_ADMIN_PASSWORD is still set"),
        ("environment", "not limited"),
        ("addresses", "links in mails would lead to http://127.0.0.1:8000"),
        ("addresses", "TRUSTED_HOSTS is *"),
        ("addresses", "TRUSTED_PROXIES is empty"),
    ):
        assert found.of(check, message).verdict is WARN


@pytest.mark.parametrize(
    ("trusted", "verdict"),
    [
        ("*", OK),
        ("API.example.org", OK),
        ("*.example.org", OK),
        ("example.org", FAIL),
        ("*.api.example.org", FAIL),
    ],
)
async def test_links_to_a_host_that_is_refused_are_told(
    trusted: str, verdict: Verdict, set_env: SetEnv
) -> None:
    set_env(public_url="https://api.example.org", trusted_hosts=trusted)
    assert (await diagnose()).of("addresses").verdict is verdict


async def test_a_short_secret_is_told(set_env: SetEnv) -> None:
    set_env(secret_key="short-but-signing")
    found = await diagnose()
    assert found.of("secrets").verdict is WARN
    assert "short-but-signing" not in found.result.output


async def test_key_files_that_others_may_read_are_told(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(secret_key="", token_algorithm="ES256")
    found = await diagnose()
    assert found.verdicts("secrets") == [OK] * 4, "the secret, its file, the pairs and their file"
    for path in (tmp_path / "secret.key", tmp_path / "keys" / "1.pem"):
        path.chmod(0o640)
        finding = (await diagnose()).of("secrets", str(path))
        assert (finding.verdict, finding.remedy) == (
            FAIL,
            f"Others may read it: chmod 600 {path}",
        )
        path.chmod(0o600)


async def test_a_folder_that_others_can_enter_is_told(set_env: SetEnv, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    set_env(data_dir=folder)
    for mode, verdict in ((0o755, WARN), (0o701, WARN), (0o750, OK), (0o700, OK)):
        folder.chmod(mode)
        finding = (await diagnose()).of("files", f"{folder} has mode {mode:o}")
        assert finding.verdict is verdict
        assert finding.remedy == (
            f"Others can enter: chmod 700 {folder}" if verdict is WARN else None
        )


async def test_key_pairs_that_are_missing_are_told(set_env: SetEnv) -> None:
    set_env(**PRODUCTION, token_algorithm="ES256")
    assert (await diagnose()).of("secrets", "needs a key pair").verdict is FAIL


async def test_a_disk_without_room_is_told(
    set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path).free
    verdicts = []
    for limits in ((0, free * 2), (free * 2, free * 2)):
        monkeypatch.setattr(host, "MIN_FREE_BYTES", limits[0])
        monkeypatch.setattr(host, "WANTED_FREE_BYTES", limits[1])
        set_env()
        verdicts.append((await diagnose()).of("disk").verdict)
    assert verdicts == [WARN, FAIL]


async def test_a_folder_that_cannot_be_made_is_told(set_env: SetEnv) -> None:
    set_env(data_dir="/proc/nowhere")
    finding = (await diagnose()).of("disk")
    assert (finding.verdict, "DATA_DIR" in (finding.remedy or "")) == (FAIL, True)


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
    assert found.verdicts("redis") == [OK, FAIL, WARN]
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

"""The doctor: its report, its checks of settings and files; it shows no secret."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from app.cli.doctor import findings, host
from app.cli.doctor.findings import Secrets, Verdict
from app.core import key_files
from tests.conftest import make_settings
from tests.support.commands import SetEnv, invoke
from tests.support.diagnosis import diagnose, migrated_file
from tests.support.settings import GOOD_SECRET

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


@pytest.mark.parametrize("trusted", ["::1", "[::1],127.0.0.1"])
async def test_an_address_of_ipv6_is_a_host_like_others(trusted: str, set_env: SetEnv) -> None:
    set_env(public_url="http://[::1]:8000", trusted_hosts=trusted)
    assert (await diagnose()).of("addresses").verdict is OK


async def test_a_short_secret_is_told(set_env: SetEnv) -> None:
    set_env(secret_key="short-but-signing")
    found = await diagnose()
    assert found.of("secrets").verdict is WARN
    assert "short-but-signing" not in found.result.output


async def test_key_files_that_others_may_read_are_told(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(secret_key="", token_algorithm="ES256")
    key_files.secrets_in(tmp_path)
    key_files.pairs_in(tmp_path, make=True)
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


async def test_looking_leaves_nothing_behind(
    set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key either, that would be found good then."""
    monkeypatch.delenv("SECRET_KEY", raising=False)
    set_env(data_dir=tmp_path / "new" / "data", token_algorithm="ES256")
    found = await diagnose()
    assert found.of("secrets", "SECRET_KEY is generated under").verdict is OK
    assert found.of("secrets", "key pairs are generated under").verdict is OK
    assert not (tmp_path / "new").exists()


async def test_a_folder_that_cannot_be_made_is_told(set_env: SetEnv) -> None:
    set_env(data_dir="/proc/nowhere")
    finding = (await diagnose()).of("disk")
    assert (finding.verdict, "DATA_DIR" in (finding.remedy or "")) == (FAIL, True)

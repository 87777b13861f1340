"""The Dockerfile and the compose file: what they name exists, and what they promise is true.

There is no container engine where tests run: the files are read, and what the image would hold
is put to work as it is.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency for one test

from app.config import Settings, TokenAlgorithm, load_settings
from app.server.serving import GRACE_SECONDS
from app.tasks.dispatcher import STOP_SECONDS
from tests.support.deployment import commands, text
from tests.support.process import ROOT, environment
from tests.support.settings import set_env

# What tells how to start the containers.
_DOCUMENTS = ("docs/deployment.md", "docs/guide.es.md")
SAMPLE_SECRET = "mQ4xZ81kWvT7cN2pR9sJ5hL3bY6dG0fA"


# --- The image -------------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and arguments, comments dropped, lines combined."""
    uncommented = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", uncommented).splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def _arguments(instruction: str) -> list[str]:
    return [rest for name, rest in _instructions() if name == instruction]


def _copied() -> list[str]:
    """What the image takes from the repository."""
    sources = []
    for rest in _arguments("COPY"):
        words = shlex.split(rest)
        if not words[0].startswith("--from="):
            sources += words[:-1]
    return sources


def test_the_image_has_stages_and_locked_packages() -> None:
    stages = _arguments("FROM")
    assert stages == [
        *("python:3.13-slim AS build", "python:3.13-slim AS api"),
        # With what backups need; the last one, which a plain build makes, is without.
        *("api AS tools", "api"),
    ]
    installs = [rest for rest in _arguments("RUN") if "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes -r requirements.txt" in installs[0]


def test_the_image_runs_without_root() -> None:
    users = [rest for name, rest in _instructions() if name in {"FROM", "USER"}]
    assert users[2:] == ["10001", "api AS tools", "root", "10001", "api"]
    assert any("useradd" in rest and "--uid 10001" in rest for rest in _arguments("RUN"))


def test_the_image_serves_and_watches_itself() -> None:
    (command,) = _arguments("CMD")
    module = json.loads(command)
    assert module[:3] == ["python", "-m", "app.cli"]
    assert module[3] == "serve"
    assert module[3] in commands()
    assert _arguments("STOPSIGNAL") == ["SIGTERM"]
    (check,) = _arguments("HEALTHCHECK")
    probe = json.loads(check.partition("CMD ")[2])
    assert probe[:2] == ["python", "-c"]
    assert "/health'" in probe[2]
    compile(probe[2], "HEALTHCHECK", "exec")


def test_the_image_takes_what_exists_and_the_ignore_file_lets_through() -> None:
    assert _copied() == ["requirements.txt", "alembic.ini", "alembic", "app"]
    assert all((ROOT / name).exists() for name in _copied())
    ignored = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(_copied())


def test_the_image_holds_all_that_migrating_and_serving_need(tmp_path: Path) -> None:
    for name in _copied():
        source, target = ROOT / name, tmp_path / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    env = environment(environment="production", secret_key=SAMPLE_SECRET)
    work = (
        "from app import main; from app.cli.commands import migrate; migrate();"
        " print(main.__file__, main.create_app().title)"
    )
    done = subprocess.run(
        [sys.executable, "-c", work],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split(maxsplit=1) == [str(tmp_path / "app" / "main.py"), "Cimiento API\n"]
    assert (tmp_path / "data" / "cimiento.db").exists()


# --- The compose file ------------------------------------------------------------------------


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("compose.yaml"))
    return found


def _filled_in(value: str) -> str:
    """A value as compose hands it over, with something for each variable it asks for."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    value = value.replace("${PUBLIC_URL:?https://api.example.com}", "https://api.example.com")
    return re.sub(r"\$\{SECRET_KEY:\?[^}]+\}", SAMPLE_SECRET, value).replace(
        "${MARIADB_PASSWORD:?letters and digits}", "letters1"
    )


def _ours() -> dict[str, dict[str, Any]]:
    """The services that run the app."""
    services = _compose()["services"]
    return {name: each for name, each in services.items() if "DATABASE_URL" in str(each)}


def test_the_services_are_those_the_product_needs() -> None:
    services = _compose()["services"]
    images = {name: service["image"] for name, service in services.items()}
    assert images.pop("db") == "mariadb:10.11"
    assert images.pop("redis") == "redis:7"
    assert images.pop("mail").startswith("axllent/mailpit:v")
    assert images.pop("proxy").startswith("nginx:")
    assert images.pop("tools") == "cimiento-tools"
    assert images == dict.fromkeys(["api1", "api2", "worker", "beat", "migrate"], "cimiento")
    assert "--character-set-server=utf8mb4" in services["db"]["command"]
    assert {"--appendonly", "noeviction"} <= set(services["redis"]["command"])
    assert services["tools"]["profiles"] == ["tools"], "not started with the rest"


def test_services_wait_for_what_they_need() -> None:
    services = _compose()["services"]
    healthy = {"condition": "service_healthy"}
    for name in ("api1", "api2", "worker", "beat"):
        assert services[name]["depends_on"] == {
            "db": healthy,
            "redis": healthy,
            "migrate": {"condition": "service_completed_successfully"},
        }
    assert services["proxy"]["depends_on"] == {"api1": healthy, "api2": healthy}
    assert services["migrate"]["restart"] == "no"
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services)
        # The image of the API brings a check of its own; what serves nothing needs none.
        assert "healthcheck" in service or name.startswith("api")


def test_what_runs_the_app_is_locked_in_and_has_time_to_stop() -> None:
    assert len(_ours()) == 6
    for service in _ours().values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS + STOP_SECONDS


def test_the_two_processes_of_the_api_differ_in_their_address_alone() -> None:
    first, second = (_compose()["services"][name] for name in ("api1", "api2"))
    addresses = [each["networks"]["front"].pop("ipv4_address") for each in (first, second)]
    assert first == second
    proxy = text("deploy/nginx/nginx.conf")
    assert re.findall(r"server ([\d.]+):8000 ", proxy) == addresses


def test_only_the_proxy_may_say_whom_it_forwards_for() -> None:
    compose = _compose()
    address = compose["services"]["proxy"]["networks"]["front"]["ipv4_address"]
    assert {each["environment"]["TRUSTED_PROXIES"] for each in _ours().values()} == {address}
    (network,) = compose["networks"]["front"]["ipam"]["config"]
    for service in compose["services"].values():
        if "front" in service.get("networks", ()):
            at = service["networks"]["front"]["ipv4_address"]
            assert ip_address(at) in ip_network(network["subnet"])
    assert [name for name, each in compose["services"].items() if "ports" in each] == [
        *("proxy", "mail"),
    ]


def test_volumes_are_declared_and_used() -> None:
    compose = _compose()
    mounts = [
        mount.partition(":")[0]
        for service in compose["services"].values()
        for mount in service.get("volumes", ())
    ]
    assert {mount for mount in mounts if mount[0] != "."} == set(compose["volumes"])
    assert all((ROOT / mount).is_dir() for mount in mounts if mount[0] == ".")


def test_key_pairs_outlive_the_container_that_made_them() -> None:
    """What `docker compose run --rm tools` writes is there for the API, and after it."""
    assert all("data:/data" in service["volumes"] for service in _ours().values())
    assert "DATA_DIR=/data" in " ".join(_arguments("ENV"))
    assert "install -d -m 0700 -o cimiento /data" in " ".join(_arguments("RUN")), (
        "a new volume is its own"
    )


def test_the_compose_file_holds_no_secret() -> None:
    for service in _compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD", name) and "RANDOM" not in name:
                assert re.fullmatch(r"\$\{\w+:(\?[^}]+|-)\}", value), name
            assert not re.search(r"://\w*:(?!\$\{)[^/]*@", str(value)), name


def test_ports_are_open_to_this_machine_only() -> None:
    for service in _compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_commands_of_the_compose_file_exist() -> None:
    for name, service in _ours().items():
        if "command" in service:
            assert service["command"] == ["python", "-m", "app.cli", name]
            assert name in commands()
    names = [*_DOCUMENTS, "docs/operations.md", "compose.yaml", "Dockerfile"]
    documents = "\n".join(text(name) for name in names)
    named = set(re.findall(r"python -m app\.cli ([\w-]+)", documents))
    assert named
    assert named <= commands()


@pytest.mark.usefixtures("no_settings")
def test_the_settings_of_the_compose_file_are_safe_in_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = _compose()["services"]["api1"]["environment"]
    assert {name.lower() for name in given} <= set(Settings.model_fields)
    values = {name: _filled_in(value) for name, value in given.items()}
    assert not any("$" in value for value in values.values())
    set_env(monkeypatch, ENVIRONMENT="production", **values)
    settings = load_settings()
    assert settings.url.drivername == "mysql+aiomysql"
    assert settings.smtp_host
    assert settings.public_url == "https://api.example.com"
    assert settings.secret_key_fallbacks == []
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.token_algorithm is TokenAlgorithm.hs256


def test_the_compose_file_hands_over_what_one_may_want_to_set() -> None:
    given = _compose()["services"]["api1"]["environment"]
    for name in (
        "SECRET_KEY_FALLBACKS",
        "TOKEN_ALGORITHM",
        "TRUSTED_HOSTS",
        "METRICS_ENABLED",
        "DOCS_ENABLED",
    ):
        assert given[name] == f"${{{name}:-}}"


def test_the_documents_export_what_the_compose_file_asks_for() -> None:
    asked_for = set(re.findall(r"\$\{(\w+):\?", text("compose.yaml")))
    compose = re.sub(r"^#", "", text("compose.yaml"), flags=re.MULTILINE)
    for document in (*map(text, _DOCUMENTS), compose):
        exports = " ".join(re.findall(r"^ *export (.*)$", document, flags=re.MULTILINE))
        assert set(re.findall(r"(\w+)=", exports)) == asked_for

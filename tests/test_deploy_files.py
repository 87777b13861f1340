"""The Dockerfile and the compose file: what they name is there, what they promise is so.

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
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency for one test

from app.cli import cli
from app.config import Environment, Settings
from tests.support.process import ROOT, environment

SAMPLE_SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _commands() -> set[str]:
    return {
        str(command.name or command.callback.__name__.replace("_", "-"))
        for command in cli.registered_commands
        if command.callback
    }


# --- The image -------------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, comments dropped, lines joined."""
    text = re.sub(r"^#.*\n", "", _text("Dockerfile"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
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


def test_the_image_has_two_stages_and_locked_packages() -> None:
    stages = _arguments("FROM")
    assert stages == ["python:3.13-slim AS build", "python:3.13-slim"]
    installs = [rest for rest in _arguments("RUN") if "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes -r requirements.txt" in installs[0]


def test_the_image_runs_without_root() -> None:
    instructions = [name for name, _ in _instructions()]
    last_stage = _instructions()[len(instructions) - 1 - instructions[::-1].index("FROM") :]
    users = [rest for name, rest in last_stage if name == "USER"]
    assert users == ["10001"]
    assert any("useradd" in rest and "--uid 10001" in rest for rest in _arguments("RUN"))


def test_the_image_serves_and_watches_itself() -> None:
    (command,) = _arguments("CMD")
    module = json.loads(command)
    assert module[:3] == ["python", "-m", "app.cli"]
    assert module[3] == "serve"
    assert module[3] in _commands()
    (check,) = _arguments("HEALTHCHECK")
    probe = json.loads(check.partition("CMD ")[2])
    assert probe[:2] == ["python", "-c"]
    assert "/health'" in probe[2]
    compile(probe[2], "HEALTHCHECK", "exec")


def test_the_image_takes_what_exists_and_the_ignore_file_lets_through() -> None:
    assert _copied() == ["requirements.txt", "alembic.ini", "alembic", "app"]
    assert all((ROOT / name).exists() for name in _copied())
    ignored = [line for line in _text(".dockerignore").splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(_copied())


def test_the_image_holds_all_that_migrating_and_serving_need(tmp_path: Path) -> None:
    for name in _copied():
        source, target = ROOT / name, tmp_path / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    env = environment(environment="production", secret_key=SAMPLE_SECRET)
    work = "from app import cli, main; cli.migrate(); print(main.__file__, main.create_app().title)"
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
    found: dict[str, Any] = yaml.safe_load(_text("compose.yaml"))
    return found


def _filled_in(value: str) -> str:
    """A value as compose hands it over, with something for each variable it asks for."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{SECRET_KEY:\?[^}]+\}", SAMPLE_SECRET, value).replace(
        "${MARIADB_PASSWORD:?letters and digits}", "letters1"
    )


def test_the_services_are_those_the_product_needs() -> None:
    services = _compose()["services"]
    images = {name: service["image"] for name, service in services.items()}
    assert images["db"] == "mariadb:10.11"
    assert images["redis"] == "redis:7"
    assert images["mail"].startswith("axllent/mailpit:v")
    assert images["api"] == images["migrate"]
    assert "--character-set-server=utf8mb4" in services["db"]["command"]


def test_services_wait_for_what_they_need() -> None:
    services = _compose()["services"]
    assert services["api"]["depends_on"] == {
        "db": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert services["migrate"]["restart"] == "no"
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services)
        # The image of the API brings a check of its own; what runs once needs none.
        assert "healthcheck" in service or name == "api"


def test_volumes_are_declared_and_used() -> None:
    compose = _compose()
    mounts = [
        mount for service in compose["services"].values() for mount in service.get("volumes", ())
    ]
    assert {mount.partition(":")[0] for mount in mounts} == set(compose["volumes"])


def test_the_compose_file_holds_no_secret() -> None:
    for service in _compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD", name) and "RANDOM" not in name:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
            assert not re.search(r"://\w+:(?!\$\{)", str(value)), name


def test_ports_are_open_to_this_machine_only() -> None:
    for service in _compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_commands_of_the_compose_file_exist() -> None:
    command = _compose()["services"]["migrate"]["command"]
    assert command[:3] == ["python", "-m", "app.cli"]
    assert command[3] in _commands()
    documents = "\n".join(_text(name) for name in ["README.md", "compose.yaml", "Dockerfile"])
    named = set(re.findall(r"python -m app\.cli ([\w-]+)", documents))
    assert named
    assert named <= _commands()


def test_the_settings_of_the_compose_file_are_safe_in_production() -> None:
    given = _compose()["services"]["api"]["environment"]
    assert {name.lower() for name in given} <= set(Settings.model_fields)
    values: dict[str, Any] = {name.lower(): _filled_in(value) for name, value in given.items()}
    assert not any("$" in value for value in values.values())
    settings = Settings(_env_file=None, environment=Environment.production, **values)
    assert settings.url.drivername == "mysql+aiomysql"

"""The systemd units start existing commands and give them time to stop."""

from __future__ import annotations

import re
from configparser import ConfigParser

import pytest

from app.config import Settings
from app.server.serving import GRACE_SECONDS
from app.tasks.dispatcher import STOP_SECONDS
from tests.support.deployment import commands, text
from tests.support.process import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())


def _unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are
    parser.read_string(text(f"deploy/systemd/{name}"))
    return parser


@pytest.mark.parametrize("unit", [path.name for path in UNITS if path.suffix == ".service"])
def test_units_run_commands_that_exist_and_have_time_to_stop(unit: str) -> None:
    service = _unit(unit)["Service"]
    (command,) = re.findall(r"python -m app\.cli ([\w-]+)", service["ExecStart"])
    assert command in commands()
    assert service["User"] == "cimiento"
    assert service["UMask"] == "0077"
    assert service["StateDirectoryMode"] == "0700"
    given = dict(pair.split("=") for pair in service["Environment"].split())
    assert given["ENVIRONMENT"] == "production"
    assert set(given) <= {name.upper() for name in Settings.model_fields}
    if service.get("Type") != "oneshot":
        assert int(service["TimeoutStopSec"]) > GRACE_SECONDS + STOP_SECONDS
        assert service["Restart"] == "always"


def test_every_process_of_the_compose_file_has_a_unit() -> None:
    units = {re.split(r"[@.]", path.name.removeprefix("cimiento-"))[0] for path in UNITS}
    assert units == {"api", "worker", "beat", "backup"}

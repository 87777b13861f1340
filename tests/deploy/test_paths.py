"""Paths of state and checkout that hold characters special in URLs and files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import make_settings
from tests.support.process import ROOT, environment, run_command
from tests.support.settings import GOOD_SECRET

NAMES = ["a b", "50%", "%(here)s", "%41", "what?", "what?mode=ro", "#1", "a&b=c", "é", "a:b@c", "+"]
ODD = "50% of? it #1 %(here)s"


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_the_database_lies_where_the_state_is_kept(tmp_path: Path, name: str) -> None:
    settings = make_settings("", tmp_path / name)
    assert settings.url.database == str(tmp_path / name / "cimiento.db")
    [path], _ = settings.url.get_dialect()().create_connect_args(settings.url)
    assert path == settings.url.database


async def test_all_state_lies_in_a_folder_of_an_odd_name(tmp_path: Path) -> None:
    env = environment(data_dir=ODD, secret_key=GOOD_SECRET)
    for command in (("migrate",), ("seed", "--users", "1", "--posts", "1"), ("backup", f"{ODD}.x")):
        status, _, complaints = await run_command(*command, cwd=tmp_path, env=env)
        assert status == 0, complaints
    assert names_in(tmp_path) == {ODD, f"{ODD}.x"}
    assert "cimiento.db" in names_in(tmp_path / ODD)


async def test_a_checkout_may_lie_in_a_folder_of_an_odd_name(tmp_path: Path) -> None:
    checkout = tmp_path / ODD
    for name in ("app", "alembic"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", checkout)
    env = environment(secret_key=GOOD_SECRET) | {"PYTHONPATH": str(checkout)}
    status, _, complaints = await run_command("migrate", cwd=checkout, env=env)
    assert (status, complaints) == (0, "")
    assert (checkout / "data" / "cimiento.db").is_file()

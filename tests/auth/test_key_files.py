"""Key files under DATA_DIR: created once, rotated, and dropped when no token needs them."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from app.config import Settings, TokenAlgorithm, load_settings
from app.core.key_files import MAX_KEPT, pairs_in, rotate_pair, rotate_secret, secrets_in
from tests.support.process import environment, run_command

T = TypeVar("T")
MONTH = timedelta(days=30)
NOW = timedelta(0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def at_once(work: Callable[[], T]) -> list[T]:
    """What four threads find that do the same at the same moment."""
    gate, found = threading.Barrier(4), list[T]()

    def start() -> None:
        gate.wait()
        found.append(work())

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    return found


# --- Starting --------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_settings")
def test_development_makes_a_key_pair_once_and_keeps_it_to_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().key_pairs == []
    assert not Path("data/keys").exists(), "no key pair is generated unless it is needed"
    monkeypatch.setenv("TOKEN_ALGORITHM", "ES256")
    first = load_settings().key_pairs
    assert len(first) == 1
    assert [path.name for path in Path("data/keys").iterdir()] == ["1.pem"]
    assert mode(Path("data/keys/1.pem")) == 0o600
    assert load_settings().key_pairs == first
    assert "PRIVATE" not in repr(first)


def test_processes_that_start_together_agree_on_the_key_pair(tmp_path: Path) -> None:
    for attempt in range(20):

        def started(folder: Path = tmp_path / str(attempt)) -> str:
            es256 = TokenAlgorithm.es256
            settings = Settings(_env_file=None, data_dir=folder, token_algorithm=es256)
            return settings.key_pairs[0].id

        assert len(set(at_once(started))) == 1


async def test_two_processes_agree_too(tmp_path: Path) -> None:
    """Real ones: what one has signed, the other must verify."""
    env = environment(data_dir=tmp_path / "data", token_algorithm="ES256", docs_enabled=False)
    for _ in range(2):
        assert (await run_command("openapi", cwd=tmp_path, env=env))[0] == 0
    names = sorted(path.name for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert names == ["1.pem", "secret.key"]


# --- Rotating --------------------------------------------------------------------------------


def test_a_rotated_secret_stays_behind_the_new_one(tmp_path: Path) -> None:
    (first,) = secrets_in(tmp_path)
    assert rotate_secret(tmp_path, keep=MONTH) == 1
    second, *older = secrets_in(tmp_path)
    assert older == [first]
    assert rotate_secret(tmp_path, keep=MONTH) == 2
    third, *older = secrets_in(tmp_path)
    assert older == [second, first]
    assert len(third) >= 32
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
    assert mode(tmp_path / "secret.key") == 0o600
    assert rotate_secret(tmp_path, keep=NOW) == 0
    (fourth,) = secrets_in(tmp_path)
    assert fourth not in {first, second, third}


def test_rotations_at_once_lose_no_secret_and_no_pair(tmp_path: Path) -> None:
    (first,) = secrets_in(tmp_path)
    assert sorted(at_once(lambda: rotate_secret(tmp_path, keep=MONTH))) == [1, 2, 3, 4]
    assert len(secrets_in(tmp_path)) == 5
    assert secrets_in(tmp_path)[-1] == first
    assert sorted(at_once(lambda: rotate_pair(tmp_path, keep=MONTH))) == [0, 1, 2, 3]
    assert len(pairs_in(tmp_path, make=False)) == 4


def test_a_secret_is_dropped_so_long_after_it_was_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text(
        "newest\nlately\t2999-01-01T00:00:00Z\n\nlong ago\t2026-01-01T00:00:00Z\n"
    )
    assert secrets_in(tmp_path) == ["newest", "lately", "long ago"]
    assert rotate_secret(tmp_path, keep=MONTH) == 2
    assert secrets_in(tmp_path)[1:] == ["newest", "lately"]


def test_a_rotated_pair_stays_behind_the_new_one(tmp_path: Path) -> None:
    assert rotate_pair(tmp_path, keep=MONTH) == 0
    (first,) = pairs_in(tmp_path, make=False)
    assert rotate_pair(tmp_path, keep=MONTH) == 1
    second, *older = pairs_in(tmp_path, make=True)
    assert older == [first]
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["1.pem", "2.pem"]
    assert rotate_pair(tmp_path, keep=NOW) == 0
    (third,) = pairs_in(tmp_path, make=False)
    assert third not in (first, second)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["3.pem"]


def test_a_pair_is_dropped_so_long_after_it_was_replaced(tmp_path: Path) -> None:
    for _ in range(3):
        rotate_pair(tmp_path, keep=MONTH)
    newest, second, first = pairs_in(tmp_path, make=False)
    two_months_ago = time.time() - 60 * 86_400
    for number in (1, 2):
        os.utime(tmp_path / "keys" / f"{number}.pem", (two_months_ago, two_months_ago))
    assert rotate_pair(tmp_path, keep=MONTH) == 2, "the second was replaced just now"
    assert pairs_in(tmp_path, make=False)[1:] == [newest, second]
    assert first not in pairs_in(tmp_path, make=False)


def test_no_more_keys_are_kept_than_a_start_can_bear(tmp_path: Path) -> None:
    for _ in range(MAX_KEPT + 3):
        secrets_in(tmp_path)
        rotate_secret(tmp_path, keep=MONTH)
        rotate_pair(tmp_path, keep=MONTH)
    assert len(secrets_in(tmp_path)) == MAX_KEPT
    assert len(pairs_in(tmp_path, make=False)) == MAX_KEPT
    assert (tmp_path / "keys" / f"{MAX_KEPT + 3}.pem").exists(), "the newest are those that stay"


def test_files_that_are_no_keys_of_ours_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("mine.pem", "1.txt", "draft.0f"):
        (folder / name).write_text("x")
    assert pairs_in(tmp_path, make=False) == []
    assert len(pairs_in(tmp_path, make=True)) == 1
    rotate_pair(tmp_path, keep=NOW)
    assert len([*folder.iterdir()]) == 4

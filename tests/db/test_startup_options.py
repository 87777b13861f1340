"""The options that a PostgreSQL URL sets for its sessions."""

from __future__ import annotations

import pytest

from app.db.startup_options import settings_in
from tests.support.commands import SetEnv
from tests.support.settings import refusal

URL = "postgresql://postgres@127.0.0.1/x"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", {}),
        ("-csearch_path=app", {"search_path": "app"}),
        ("-c search_path=app,public -c jit=off", {"search_path": "app,public", "jit": "off"}),
        ("--search-path=app", {"search_path": "app"}),
        (r"-c search_path=my\ app\\s", {"search_path": r"my app\s"}),
        ("-c Statement_Timeout=1s  -cstatement_timeout=2s", {"statement_timeout": "2s"}),
        ("-c app.tenant=a=b", {"app.tenant": "a=b"}),
        ("-c search_path=", {"search_path": ""}),
    ],
)
def test_settings_are_found(options: str, found: dict[str, str]) -> None:
    assert settings_in(options) == found


@pytest.mark.parametrize(
    "options", ["-e", "-c", "-c search_path", "-S 64", "search_path=app", "--"]
)
def test_nothing_else_is_taken(options: str, set_env: SetEnv) -> None:
    with pytest.raises(ValueError, match="nothing but settings"):
        settings_in(options)
    set_env(database_url=f"{URL}?options={options.replace(' ', '%20')}")
    assert "DATABASE_URL: options may hold nothing but settings" in refusal()
    set_env(database_url=URL, database_direct_url=f"{URL}?options=-e")
    assert "DATABASE_DIRECT_URL: options may" in refusal()


def test_a_direct_url_leads_to_the_same_kind(set_env: SetEnv) -> None:
    set_env(database_url=URL, database_direct_url="mysql://root@127.0.0.1/x")
    assert "DATABASE_DIRECT_URL must lead to the database of DATABASE_URL" in refusal()
    set_env(database_direct_url="nonsense")
    assert "DATABASE_DIRECT_URL must begin with" in refusal()
    set_env(database_direct_url=f"{URL}?no_such=1")
    assert "DATABASE_DIRECT_URL: unknown options: no_such" in refusal()


def test_poolers_are_postgresqls(set_env: SetEnv) -> None:
    set_env(database_url="mysql://root@127.0.0.1/x", database_pooler="transaction")
    assert "DATABASE_POOLER is for PostgreSQL alone" in refusal()
    set_env(database_url=URL, database_pooler="pgbouncer")
    assert "DATABASE_POOLER" in refusal()

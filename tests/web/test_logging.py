"""Each log event is one valid line, whatever it holds and wherever it comes from."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from app.core.context import RequestContext, current
from tests.support.logs import Output, captured_logging, decoded

log = logging.getLogger("app.test")
MAX_LINE = 8192


class Unprintable:
    """An object that cannot be turned into text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def one_line(logs: Output) -> dict[str, Any]:
    """The only event logged, from the only line of output."""
    line = logs.take()
    assert len(line) <= MAX_LINE
    [entry] = decoded(line)
    assert line.count("\n") == 1
    return entry


def apart(logs: Output) -> logging.Logger:
    """A logger without pytest's handlers, which raise on what cannot be turned into text."""
    logger = logging.Logger("app.test")
    logger.addHandler(logs.handler)
    return logger


# --- Hostile values --------------------------------------------------------------------------

HOSTILE: list[Any] = [
    "two\r\nlines",
    "escape \x1b[31m red \x1b]0;title\x07",
    "nul \0 and del \x7f",
    "separators \u2028 \u2029 \x85",
    "lone surrogate \ud800 \udfff",
    "😀" * 300_000,
    "x" * 1_000_000,
    '{"levelname": "CRITICAL"}',
    '"}\n{"level": "CRITICAL"}',
    float("nan"),
    float("inf"),
    10**5000,
    -(2**63) - 1,
    b"\xff\x00",
    {"levelname": "CRITICAL", "nested": {"deep": [1, 2, {"x": float("nan")}]}},
    {1: "a", None: "b", ("t",): "c"},
    ["x" * 100] * 1000,
    object(),
    Unprintable(),
    ValueError("\r\n"),
    "%s %d {} {name}",
    "",
    None,
]
IDS = [f"{number}-{type(value).__name__}" for number, value in enumerate(HOSTILE)]


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_hostile_message_is_one_valid_line(value: Any, logs: Output) -> None:
    """A56"""
    apart(logs).info(value)
    entry = one_line(logs)
    assert (entry["level"], entry["logger"]) == ("INFO", "app.test")


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_hostile_argument_or_extra_is_one_valid_line(value: Any, logs: Output) -> None:
    """A56"""
    apart(logs).warning("event %s", value)
    entry = one_line(logs)
    assert (entry["level"], entry["logger"]) == ("WARNING", "app.test")
    apart(logs).warning("event", extra={"value": value, "other": "kept"})
    entry = one_line(logs)
    assert (entry["level"], entry["message"], entry["other"]) == ("WARNING", "event", "kept")


def test_harmless_extras_keep_their_types(logs: Output) -> None:
    log.info("event", extra={"n": 7, "f": 1.5, "yes": True, "none": None, "text": "ñ"})
    entry = one_line(logs)
    assert entry["message"] == "event"
    assert [entry[key] for key in ("n", "f", "yes", "none", "text")] == [7, 1.5, True, None, "ñ"]


def test_a_record_with_very_many_fields_stays_short_and_keeps_its_own(logs: Output) -> None:
    """A56: ≤ 8 KB."""
    log.error("event", extra={f"field{number}": "😀" * 3000 for number in range(500)})
    entry = one_line(logs)
    assert (entry["level"], entry["message"]) == ("ERROR", "event")


def test_a_huge_trace_keeps_its_end(logs: Output) -> None:
    """A56: ≤ 8 KB, and the line that says what went wrong."""

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("😀" * 1000 + " the end")

    try:
        deep(50)
    except ValueError:
        log.exception("event")
    entry = one_line(logs)
    assert entry["message"] == "event"
    assert entry["trace"].endswith("the end")


def test_no_logged_value_poses_as_one_of_the_records_own_fields(logs: Output) -> None:
    """A56: fields not overridable."""
    fake = {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "CRITICAL",
        "levelname": "CRITICAL",
        "logger": "root",
        "request_id": "forged",
        "user_id": 1,
    }
    log.info("event", extra={key: value for key, value in fake.items() if key != "levelname"})
    entry = one_line(logs)
    log.info({"message": "event"} | fake)
    other = one_line(logs)
    for found in (entry, other):
        assert (found["level"], found["logger"], found["message"]) == ("INFO", "app.test", "event")
        assert (found["request_id"], found["user_id"]) == (None, None)
        assert not found["time"].startswith("1970")


def test_the_time_is_utc_with_milliseconds(logs: Output) -> None:
    log.info("event")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one_line(logs)["time"])


def test_wrong_arguments_cost_the_text_but_not_the_event(logs: Output) -> None:
    """A56: never lost."""
    arguments = ("x",)
    apart(logs).error("%d of %d", *arguments)
    assert one_line(logs)["level"] == "ERROR"


# --- Where it goes ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.asgi", "sqlalchemy.pool"])
def test_every_logger_of_the_process_writes_the_same_lines(name: str, logs: Output) -> None:
    logger = logging.getLogger(name)
    assert logger.handlers == []
    logger.error("event", extra={"color_message": "\x1b[36mevent"})
    entry = one_line(logs)
    assert (entry["logger"], entry["message"]) == (name, "event")
    assert "color_message" not in entry


def test_uvicorns_own_access_lines_are_off(logs: Output) -> None:
    """They would hold query strings."""
    logging.getLogger("uvicorn.access").error("GET /?token=x")
    assert logs.take() == ""


def test_configuring_again_replaces_and_does_not_repeat() -> None:
    with captured_logging(level="DEBUG") as first, captured_logging(level="WARNING") as second:
        log.info("too quiet")
        log.warning("event")
        assert first.take() == ""
        assert one_line(second)["message"] == "event"


def test_the_console_format_is_for_people() -> None:
    with captured_logging(level="INFO", as_json=False) as logs:
        log.warning("disk is %s", "full", extra={"hidden": "x"})
        log.info("lone surrogate \ud800")
        log.debug("too quiet")
        first, second = logs.take().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(stamp + r" WARNING app\.test: disk is full", first)
    assert second.endswith(r"lone surrogate \ud800")


def test_the_console_shows_requests() -> None:
    fields = {"method": "GET", "route": "/x", "status": 200, "duration_ms": 12.345, "ip": "::1"}
    access = logging.getLogger("app.request")
    with captured_logging(level="INFO", as_json=False) as logs:
        access.info("request", extra=fields | {"path": "/api/v1/posts"})
        token = current.set(RequestContext(request_id="", user_id=7))
        try:
            access.info("request", extra=fields | {"path": "/a\nb\x1b[31m\u202e\u2028é"})
        finally:
            current.reset(token)
        access.error("not a request", extra={"error": "x"})
        first, second, third = logs.take().split("\n")[:3]
    assert first.endswith("INFO    app.request: GET /api/v1/posts 200 12.3 ms user=-")
    assert second.endswith(r"GET /a\nb\x1b[31m\u202e\u2028é 200 12.3 ms user=7")
    assert third.endswith("ERROR   app.request: not a request")


def test_a_message_cannot_forge_lines_on_the_console() -> None:
    with captured_logging(level="INFO", as_json=False) as logs:
        log.info("one\n2026-01-01 INFO two")
        try:
            raise ValueError("why\x1b[2J\r")
        except ValueError:
            log.exception("failed")
        lines = logs.take().split("\n")
    assert lines[0].endswith(r"one\n2026-01-01 INFO two")
    assert (lines[1].endswith("failed"), lines[-2]) == (True, r"ValueError: why\x1b[2J\r")

"""Logs: one JSON line an event, with the request it belongs to and nothing secret.

Bodies, query strings, headers, tokens and passwords are never handed to a logger. What is
handed over is bounded and sanitised here: hostile text stays one valid line.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.core.context import request_context

MAX_LINE = 8_000
# How long a value may be; when the line is too long all the same (a character may take twelve
# bytes), the next one. A trace keeps two and a half times as much, from its end.
_MAX_VALUES = (2_000, 600, 200, 80)
_OWN_FIELDS = ("time", "level", "logger", "message", "request_id", "user_id")
# At DEBUG these write what they read and store: parameters, rows, password hashes.
_TALKATIVE = ("aiosqlite", "sqlalchemy")
# Control characters, and what reorders or breaks a line.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JsonLines(JsonFormatter):
    """The fields of a line: time, level, logger, message, request_id, user_id, then the extras."""

    def __init__(self) -> None:
        super().__init__(
            reserved_attrs=[*RESERVED_ATTRS, "color_message"], json_serializer=_serialize
        )

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        # Arguments that fit no text cost the text, not the event.
        except Exception as error:  # noqa: BLE001 see above
            return _serialize(self._own(record, f"not loggable: {type(error).__name__}"))

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        # The record's own facts come last: no logged value may pose as one of them.
        log_data.update(self._own(record, log_data.get("message") or record.getMessage()))

    def _own(self, record: logging.LogRecord, message: object) -> dict[str, Any]:
        context = request_context()
        return {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "request_id": context.request_id or None,
            "user_id": context.user_id,
        }


def _serialize(fields: dict[str, Any], **_: Any) -> str:
    """Return a line of at most MAX_LINE bytes; drop what is too long even when shortened."""
    for limit in _MAX_VALUES:
        line = _dumped(fields, limit)
        if len(line) <= MAX_LINE:
            return line
    return _dumped({key: fields.get(key) for key in (*_OWN_FIELDS, "exc_info")}, limit)


def _dumped(fields: dict[str, Any], limit: int) -> str:
    safe = {str(key)[:100]: _safe(value, limit) for key, value in fields.items()}
    ordered = {key: safe.pop(key, None) for key in _OWN_FIELDS} | safe
    if ordered.pop("exc_info", None):
        ordered["trace"] = str(fields["exc_info"])[-limit * 5 // 2 :]
    return json.dumps(ordered)


def _safe(value: object, limit: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    try:
        return str(value)[:limit]
    # Whatever an object does when it is asked for its text.
    except Exception:  # noqa: BLE001 see above
        return f"<{type(value).__name__}>"


class ConsoleLines(logging.Formatter):
    """Lines for people: the message, and of a request what it was and what became of it.

    What would break a line or steer a terminal is shown escaped, and so are lone surrogates, which
    no stream takes.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 named by logging
        """Return a record's line, before its trace."""
        if record.name == "app.request" and hasattr(record, "duration_ms"):
            record.message = _access_line(vars(record))
        return _UNPRINTABLE.sub(_escaped, super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        # Traces have lines of their own; the text of an error in them may come from outside.
        lines = [_UNPRINTABLE.sub(_escaped, line) for line in super().format(record).split("\n")]
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _access_line(fields: Mapping[str, Any]) -> str:
    """Return an access line: method, path, status, milliseconds, and whose request it was."""
    user_id = request_context().user_id
    user = "-" if user_id is None else user_id
    path = _safe(fields["path"], _MAX_VALUES[0])
    return (
        f"{fields['method']} {path} {fields['status']} {fields['duration_ms']:.1f} ms user={user}"
    )


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class _OurHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in stubs only
    """Marks the handler that `configure` replaces when it is called again."""


def configure(*, level: str, as_json: bool) -> None:
    """Send every logger of the process, uvicorn's included, through one handler to stdout."""
    handler = _OurHandler(sys.stdout)
    formatter = JsonLines() if as_json else ConsoleLines(_CONSOLE_FORMAT)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, _OurHandler)]
    root.addHandler(handler)
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # Our own middleware writes the access line; uvicorn's would hold query strings.
    logging.getLogger("uvicorn.access").disabled = True

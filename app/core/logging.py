"""Logs: one JSON line an event, with the request it belongs to and nothing secret.

Bodies, query strings, headers, tokens and passwords are never handed to a logger. What is
handed over is bounded and made safe here: hostile text stays one valid line.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.core.context import request_context

MAX_VALUE = 2_000
MAX_TRACE = 5_000
_OWN_FIELDS = ("time", "level", "logger", "message", "request_id", "user_id")
_CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JsonLines(JsonFormatter):
    """The fields of a line: time, level, logger, message, request_id, user_id, then the extras."""

    def __init__(self) -> None:
        super().__init__(
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
            json_serializer=_serialize,
            json_ensure_ascii=True,
        )

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        context = request_context()
        super().add_fields(log_data, record, message_dict)
        log_data.update(
            # The record's own facts come last: no logged value may pose as one of them.
            time=self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            level=record.levelname,
            logger=record.name,
            message=log_data.get("message") or record.getMessage(),
            request_id=context.request_id or None,
            user_id=context.user_id,
        )


def _serialize(obj: dict[str, Any], **kwargs: Any) -> str:
    trace = obj.pop("exc_info", None)
    safe = {str(key)[:100]: _safe(value) for key, value in obj.items()}
    ordered = {key: safe.pop(key, None) for key in _OWN_FIELDS} | safe
    if trace:
        ordered["trace"] = str(trace)[-MAX_TRACE:]
    kwargs.pop("default", None)
    return json.dumps(ordered, default=lambda value: str(value)[:MAX_VALUE], **kwargs)


def _safe(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    return str(value)[:MAX_VALUE]


class _OurHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in stubs only
    """Marks the handler that `configure` replaces when it is called again."""


def configure(*, level: str, as_json: bool) -> None:
    """Send every logger of the process, uvicorn's included, through one handler to stdout."""
    handler = _OurHandler(sys.stdout)
    formatter = JsonLines() if as_json else logging.Formatter(_CONSOLE_FORMAT)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, _OurHandler)]
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # Our own middleware writes the access line; uvicorn's would hold query strings.
    logging.getLogger("uvicorn.access").disabled = True

"""A new row is logged behind the response that says where it is."""

from __future__ import annotations

import logging

import pytest
from fastapi import BackgroundTasks, Response

from app.web.created import log_once_answered


async def test_a_new_row_is_logged_and_a_replay_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.created")
    for headers in ({}, {"Idempotency-Replayed": "true"}):
        background = BackgroundTasks()
        response = Response(status_code=201, headers={"Location": "/api/v1/notes/7"} | headers)
        log_once_answered(background, response)
        assert caplog.records == [] or headers, "not before the tasks are run"
        await background()
    [record] = caplog.records
    assert (record.message, record.__dict__["location"]) == ("created", "/api/v1/notes/7")

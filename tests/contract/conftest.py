"""Fixtures of the cross-cutting tests."""

from __future__ import annotations

import pytest

from app.core.permissions import ADMIN_ROLE
from tests.contract.entries.base import no_references
from tests.support.client import Client
from tests.support.create_requests import CreateRequest
from tests.support.people import new_user


@pytest.fixture
async def create_request(request: pytest.FixtureRequest, client: Client) -> CreateRequest:
    """The request of the parameter, with rows for it to point to."""
    found: CreateRequest = request.param
    if found.references is no_references:
        return found
    return await found.pointing(await new_user(client, [ADMIN_ROLE]))

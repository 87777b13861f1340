"""Roles and permissions."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import MISSING, AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.core.permissions import Permission
from app.models.roles import MAX_DESCRIPTION, MAX_ROLE_NAME
from app.schemas.base import Input, Moment, Output, SingleLine, Storable
from app.schemas.pages import PageQuery


def _folded(value: str) -> str:
    folded = unicodedata.normalize("NFKC", value).lower()
    # One character may become several: `ﬃ` three.
    if len(folded) > MAX_ROLE_NAME:
        raise PydanticCustomError("string_too_long", "too long", {"max_length": MAX_ROLE_NAME})
    return folded


RoleName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=2, max_length=MAX_ROLE_NAME, pattern=r"^\w[\w .:-]*$"
    ),
    SingleLine,
    AfterValidator(_folded),
    Field(description="Kept in lower case.", examples=["moderator"]),
]
Description = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=MAX_DESCRIPTION),
    Storable,
    Field(examples=["Keeps the peace."]),
]
Permissions = Annotated[
    list[Permission], Field(max_length=len(Permission), examples=[["posts:moderate"]])
]


class RoleCreate(Input):
    name: RoleName
    description: Description = ""
    permissions: Permissions = Field([])


class RoleUpdate(Input):
    """Changes to a role; what is left out stays. `permissions` replaces the whole set."""

    name: RoleName | MISSING = MISSING
    description: Description | MISSING = MISSING
    permissions: Permissions | MISSING = MISSING


class Role(Output):
    id: int
    name: str
    description: str
    permissions: list[Permission]
    is_system: bool
    user_count: int
    created_at: Moment
    updated_at: Moment


class RoleQuery(PageQuery):
    sort: Literal["created_at", "-created_at", "name", "-name"] = "name"


class PermissionInfo(Output):
    name: Permission
    description: str


class PermissionQuery(PageQuery):
    sort: Literal["name", "-name"] = "name"

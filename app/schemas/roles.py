"""Roles and permissions."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import MISSING, AfterValidator, Field, StringConstraints

from app.core.permissions import Permission
from app.models.roles import MAX_DESCRIPTION, MAX_ROLE_NAME
from app.schemas.base import Input, Moment, Output, RowId, Stripped
from app.schemas.pages import PageQuery


def _folded(value: str) -> str:
    return unicodedata.normalize("NFKC", value).lower()


RoleName = Annotated[
    Stripped,
    StringConstraints(min_length=2, max_length=MAX_ROLE_NAME, pattern=r"^[\w][\w .:-]*$"),
    AfterValidator(_folded),
    StringConstraints(max_length=MAX_ROLE_NAME),
    Field(description="Kept in lower case.", examples=["moderator"]),
]
Description = Annotated[
    Stripped, StringConstraints(max_length=MAX_DESCRIPTION), Field(examples=["Keeps the peace."])
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
    id: RowId
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

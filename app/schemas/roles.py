"""Roles and permissions."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    MISSING,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import PydanticKnownError, core_schema

from app.core.permissions import Permission
from app.models.roles import MAX_DESCRIPTION, MAX_ROLE_NAME
from app.schemas import patterns
from app.schemas.base import (
    CreatedAt,
    RecordId,
    RequestModel,
    ResponseModel,
    SafeText,
    SingleLine,
    UpdatedAt,
    UpdateModel,
    at_most,
)
from app.schemas.pages import SORT, PageQuery


def _folded(value: object) -> object:
    """Fold before anything is judged: one character may become several, or a blank."""
    if not isinstance(value, str):
        return value
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).lower())


RoleName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        min_length=2,
        max_length=MAX_ROLE_NAME,
        pattern=patterns.ROLE_NAME,
    ),
    SingleLine,
    BeforeValidator(_folded),
    at_most(MAX_ROLE_NAME),
    Field(description="The name, which is kept in lower case.", examples=["moderator"]),
]
Description = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=MAX_DESCRIPTION),
    SafeText,
    at_most(MAX_DESCRIPTION),
    Field(description="What the role is for.", examples=["Reviews the posts of all users."]),
]


class _NoMoreThanThereAre:
    """Bound a list of permissions by how many have been declared when it is read."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(cls._bound, handler(source))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"maxItems": len(Permission)}

    @staticmethod
    def _bound(value: object) -> object:
        if isinstance(value, list) and len(value) > len(Permission):
            lengths = {"max_length": len(Permission), "actual_length": len(value)}
            raise PydanticKnownError("too_long", {"field_type": "List", **lengths})
        return value


Permissions = Annotated[
    list[Permission],
    _NoMoreThanThereAre,
    Field(
        description="The permissions that the role grants. You must hold them yourself.",
        examples=[["posts:moderate"]],
    ),
]


class RoleCreate(RequestModel):
    """A new role."""

    name: RoleName
    description: Description = ""
    permissions: Permissions = Field([])


class Role(ResponseModel):
    """A role, which grants permissions to the users who have it."""

    id: RecordId
    name: str = Field(description="The name, in lower case, which no other role has.")
    description: str = Field(description="What the role is for.")
    permissions: list[Permission] = Field(description="The permissions that the role grants.")
    is_system: bool = Field(
        description="True for `admin` and `user`, which cannot be renamed or deleted."
    )
    user_count: int = Field(description="How many users have the role.")
    created_at: CreatedAt
    updated_at: UpdatedAt


class RoleUpdate(UpdateModel):
    """Changes to a role; what is left out stays. `permissions` replaces the whole set."""

    record: ClassVar[type[ResponseModel]] = Role

    name: RoleName | MISSING = MISSING
    description: Description | MISSING = MISSING
    permissions: Permissions | MISSING = MISSING


class RoleQuery(PageQuery):
    sort: Annotated[Literal["created_at", "-created_at", "name", "-name"], SORT] = "name"


class PermissionInfo(ResponseModel):
    """A permission that a role can grant."""

    name: Permission
    description: str = Field(
        description="What the permission allows, in the language of the request."
    )


class PermissionQuery(PageQuery):
    sort: Annotated[Literal["name", "-name"], SORT] = "name"

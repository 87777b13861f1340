"""Roles and the permissions they can grant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.exceptions import PreconditionFailed, RoleNameTaken, SystemRole
from app.crud import accounts, permissions, roles
from app.routers.bodies import StrictRoute
from app.routers.creating import RoleCreation, made
from app.routers.deps import (
    API,
    Id,
    RoleForUpdate,
    RolesReader,
    RolesWriter,
    SessionDep,
    location,
    pages_of,
    reader_of,
)
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import roles as schemas
from app.schemas import users as user_schemas
from app.schemas.pages import Page

router = APIRouter(prefix=API, tags=["roles"], route_class=StrictRoute)
RoleQuery = Annotated[schemas.RoleQuery, parsed(schemas.RoleQuery)]
PermissionQuery = Annotated[schemas.PermissionQuery, parsed(schemas.PermissionQuery)]
MemberQuery = Annotated[user_schemas.MemberQuery, parsed(user_schemas.MemberQuery)]


@router.get("/permissions", response_model=Page[schemas.PermissionInfo])
async def list_permissions(_: RolesReader, query: PermissionQuery, request: Request) -> Json:
    """List every permission a role can grant."""
    page = permissions.list_permissions(query=query, cursors=pages_of(request).cursors)
    return listed(request, page)


@router.get("/roles", response_model=Page[schemas.Role])
async def list_roles(_: RolesReader, query: RoleQuery, request: Request) -> Json:
    """List the roles."""
    return listed(request, await roles.list_roles(pages_of(request), query=query))


@router.post(
    "/roles", status_code=201, response_model=schemas.Role, responses=problems(RoleNameTaken)
)
async def create_role(
    data: schemas.RoleCreate, creation: RoleCreation, session: SessionDep, request: Request
) -> Response:
    """Make a role, out of permissions you hold yourself."""

    async def make() -> Json:
        role = await roles.create(session, caller=creation.caller, data=data)
        return made(await roles.show(session, role_id=role.id), at=location(request, role.id))

    return await creation.within(session, make)


@router.get("/roles/{role_id}", response_model=schemas.Role)
async def get_role(role_id: Id, _: RolesReader, request: Request) -> Json:
    """Read a role."""
    return Json.tagged(await roles.read(reader_of(request), role_id=role_id))


@router.patch(
    "/roles/{role_id}",
    response_model=schemas.Role,
    responses=problems(RoleNameTaken, SystemRole, PreconditionFailed),
)
async def update_role(
    data: schemas.RoleUpdate, role: RoleForUpdate, caller: RolesWriter, session: SessionDep
) -> Json:
    """Change a role; for those who have it, from their next request on. With `If-Match` only if
    it is still as it was read. If it permits more than before, links that set a password of those
    who have it (invitations) end: they may ask for one as for a forgotten password."""
    await roles.update(session, caller=caller, role=role, data=data)
    return Json.tagged(await roles.show(session, role_id=role.id))


@router.delete(
    "/roles/{role_id}", status_code=204, responses=problems(SystemRole, PreconditionFailed)
)
async def delete_role(role: RoleForUpdate, caller: RolesWriter, session: SessionDep) -> None:
    """Delete a role and take it from everybody who has it."""
    await roles.soft_delete(session, caller=caller, role=role)


@router.get("/roles/{role_id}/users", response_model=Page[user_schemas.Member])
async def list_role_users(
    role_id: Id, caller: RolesReader, query: MemberQuery, request: Request
) -> Json:
    """List the users who have a role."""
    page = await accounts.list_members(
        pages_of(request), caller=caller, role_id=role_id, query=query
    )
    return listed(request, page)

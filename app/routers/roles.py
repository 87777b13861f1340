"""Roles and the permissions they can grant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.core.exceptions import RoleNameTaken, SystemRole
from app.crud import permissions, roles, users
from app.crud.base import PageOf
from app.models.roles import Role
from app.routers.deps import (
    API,
    CursorsDep,
    Id,
    LinksDep,
    RoleForRead,
    RoleForUpdate,
    RolesReader,
    RolesWriter,
    SessionDep,
    created,
)
from app.routers.responses import problems
from app.schemas import roles as schemas
from app.schemas.pages import Page
from app.schemas.users import Member, MemberQuery

router = APIRouter(prefix=API, tags=["roles"])


@router.get("/permissions", response_model=Page[schemas.PermissionInfo])
async def list_permissions(
    query: Annotated[schemas.PermissionQuery, Query()],
    _: RolesReader,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[schemas.PermissionInfo]:
    """List every permission a role can grant."""
    return links.to(permissions.list_permissions(query=query, cursors=cursors))


@router.get("/roles", response_model=Page[schemas.Role])
async def list_roles(
    query: Annotated[schemas.RoleQuery, Query()],
    _: RolesReader,
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[Role]:
    """List the roles."""
    return links.to(await roles.list_roles(session, query=query, cursors=cursors))


@router.post(
    "/roles", status_code=201, response_model=schemas.Role, responses=problems(RoleNameTaken)
)
async def create_role(
    data: schemas.RoleCreate,
    caller: RolesWriter,
    session: SessionDep,
    request: Request,
    response: Response,
) -> Role:
    """Make a role, out of permissions you hold yourself."""
    role = await roles.create(session, caller=caller, data=data)
    created(request, response, role.id)
    return role


@router.get("/roles/{role_id}", response_model=schemas.Role)
async def get_role(role: RoleForRead) -> Role:
    """Read a role."""
    return role


@router.patch(
    "/roles/{role_id}",
    response_model=schemas.Role,
    responses=problems(RoleNameTaken, SystemRole),
)
async def update_role(
    data: schemas.RoleUpdate, role: RoleForUpdate, caller: RolesWriter, session: SessionDep
) -> Role:
    """Change a role; for those who have it, from their next request on."""
    return await roles.update(session, caller=caller, role=role, data=data)


@router.delete("/roles/{role_id}", status_code=204, responses=problems(SystemRole))
async def delete_role(role: RoleForUpdate, caller: RolesWriter, session: SessionDep) -> None:
    """Delete a role and take it from everybody who has it."""
    await roles.soft_delete(session, caller=caller, role=role)


@router.get("/roles/{role_id}/users", response_model=Page[Member])
async def list_role_users(
    query: Annotated[MemberQuery, Query()],
    role_id: Id,
    caller: RolesReader,
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[Member]:
    """List the users who have a role."""
    return links.to(
        await users.list_members(
            session, caller=caller, role_id=role_id, query=query, cursors=cursors
        )
    )

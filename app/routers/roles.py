"""Roles and the permissions they can grant."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.exceptions import PreconditionFailed, RoleNameTaken, SystemRole
from app.crud import permissions, roles, user_queries
from app.schemas import roles as schemas
from app.schemas import users as user_schemas
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    Id,
    RoleForUpdate,
    RolesReader,
    RolesWriter,
    SessionDep,
    location,
    paginator_of,
    query_runner_of,
)
from app.web.error_responses import error_responses
from app.web.idempotency import IdempotentRoleRequest
from app.web.pagination import page_response, query_params
from app.web.read_only import require_unchanged
from app.web.responses import FastJSONResponse, created_response
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=API, tags=["roles"], route_class=StrictRoute)
RoleQuery = Annotated[schemas.RoleQuery, query_params(schemas.RoleQuery)]
PermissionQuery = Annotated[schemas.PermissionQuery, query_params(schemas.PermissionQuery)]
MemberQuery = Annotated[user_schemas.MemberQuery, query_params(user_schemas.MemberQuery)]


@router.get("/permissions", response_model=Page[schemas.PermissionInfo])
async def list_permissions(
    _: RolesReader, query: PermissionQuery, request: Request
) -> FastJSONResponse:
    """List the permissions.

    List every permission that a role can grant, described in the language of the request.
    """
    page = permissions.list_permissions(query=query, cursors=paginator_of(request).cursors)
    return page_response(request, page)


@router.get("/roles", response_model=Page[schemas.Role])
async def list_roles(_: RolesReader, query: RoleQuery, request: Request) -> FastJSONResponse:
    """List the roles.

    List the roles with the permissions they grant, and how many users have each.
    """
    return page_response(request, await roles.list_roles(paginator_of(request), query=query))


@router.post(
    "/roles", status_code=201, response_model=schemas.Role, responses=error_responses(RoleNameTaken)
)
async def create_role(
    data: schemas.RoleCreate,
    idempotent: IdempotentRoleRequest,
    session: SessionDep,
    request: Request,
) -> Response:
    """Create a role.

    A role can grant only permissions that you hold yourself.
    """

    async def make() -> FastJSONResponse:
        role = await roles.create(session, caller=idempotent.caller, data=data)
        return created_response(
            await roles.show(session, role_id=role.id), at=location(request, role.id)
        )

    return await idempotent.run_in_session(session, make)


@router.get("/roles/{role_id}", response_model=schemas.Role)
async def get_role(role_id: Id, _: RolesReader, request: Request) -> FastJSONResponse:
    """Read a role.

    Return the role with its permissions. Send its `ETag` as `If-Match` to change it.
    """
    return FastJSONResponse.with_etag(await roles.read(query_runner_of(request), role_id=role_id))


@router.patch(
    "/roles/{role_id}",
    response_model=schemas.Role,
    responses=error_responses(RoleNameTaken, SystemRole, PreconditionFailed),
)
async def update_role(
    data: schemas.RoleUpdate, role: RoleForUpdate, caller: RolesWriter, session: SessionDep
) -> FastJSONResponse:
    """Update a role.

    Change the members that are sent; the others stay. For users who have the role, the change
    counts from their next request on. Send `If-Match` to change the role only if it is still
    as you read it.

    If the role grants more than before, links that set a password of users who have it
    (invitations) end. These users can request another link as for a forgotten password.
    """
    await require_unchanged(data, partial(roles.show, session, role_id=role.id))
    await roles.update(session, caller=caller, role=role, data=data)
    return FastJSONResponse.with_etag(await roles.show(session, role_id=role.id))


@router.delete(
    "/roles/{role_id}", status_code=204, responses=error_responses(SystemRole, PreconditionFailed)
)
async def delete_role(role: RoleForUpdate, caller: RolesWriter, session: SessionDep) -> None:
    """Delete a role.

    Take the role from every user who has it, and delete it. The roles `admin` and `user`
    cannot be deleted.
    """
    await roles.soft_delete(session, caller=caller, role=role)


@router.get("/roles/{role_id}/users", response_model=Page[user_schemas.Member])
async def list_role_users(
    role_id: Id, caller: RolesReader, query: MemberQuery, request: Request
) -> FastJSONResponse:
    """List the users with a role.

    List the users who have the role. `email`, `phone` and `birth_date` are null without
    `users:read`.
    """
    page = await user_queries.list_members(
        paginator_of(request), caller=caller, role_id=role_id, query=query
    )
    return page_response(request, page)

"""Which user has which roles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.exceptions import LastAdmin
from app.crud import roles, users
from app.schemas import roles as role_schemas
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    WAKE_MAIL_DELIVERY,
    Id,
    RolesAssigner,
    SessionDep,
    SettingsDep,
    UsersReader,
    paginator_of,
)
from app.web.error_responses import error_responses
from app.web.pagination import page_response, query_params
from app.web.responses import FastJSONResponse
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/users/{{user_id}}/roles", tags=["users"], route_class=StrictRoute)
RoleQuery = Annotated[role_schemas.RoleQuery, query_params(role_schemas.RoleQuery)]


@router.get("", response_model=Page[role_schemas.Role])
async def list_user_roles(
    user_id: Id, _: UsersReader, query: RoleQuery, request: Request
) -> FastJSONResponse:
    """List the roles of a user.

    List the roles with the permissions they grant. The user holds the permissions of all of
    them.
    """
    return page_response(
        request, await roles.list_of_user(paginator_of(request), user_id=user_id, query=query)
    )


@router.put("/{role_id}", status_code=204, dependencies=[WAKE_MAIL_DELIVERY])
async def assign_role(
    user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep, settings: SettingsDep
) -> None:
    """Assign a role to a user.

    The role counts from the next request of the user on. If the user has it already, nothing
    changes.

    If it grants more than before, links that set the password of the user (an invitation)
    end, and new ones are mailed.
    """
    user = await users.get_for_update(session, user_id=user_id)
    await roles.assign(session, caller=caller, user=user, role_id=role_id, keys=settings.keys)


@router.delete("/{role_id}", status_code=204, responses=error_responses(LastAdmin))
async def revoke_role(user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep) -> None:
    """Revoke a role from a user.

    The change counts from the next request of the user on. If the user does not have the
    role, nothing changes.
    """
    user = await users.get_for_update(session, user_id=user_id)
    await roles.revoke(session, caller=caller, user=user, role_id=role_id)

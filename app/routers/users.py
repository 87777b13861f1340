"""Users, for themselves and for administrators."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.exceptions import (
    EmailTaken,
    LastAdmin,
    NotFound,
    PreconditionFailed,
    WrongCurrentPassword,
)
from app.crud import accounts, credentials, posts, roles, users
from app.routers.bodies import StrictRoute
from app.routers.creating import UserCreation, made
from app.routers.deps import (
    API,
    MAILS,
    ActingCaller,
    CurrentCaller,
    Id,
    MaybeCaller,
    MeForUpdate,
    RolesAssigner,
    SessionDep,
    SettingsDep,
    UserForRestore,
    UserForUpdate,
    UsersReader,
    UsersWriter,
    location,
    pages_of,
    reader_of,
)
from app.routers.doors import Confirming
from app.routers.etags import IfMatch, require_shown
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import auth as auth_schemas
from app.schemas import posts as post_schemas
from app.schemas import recovery as recovery_schemas
from app.schemas import roles as role_schemas
from app.schemas import users as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/users", tags=["users"], route_class=StrictRoute)
_STALE = problems(PreconditionFailed)
UserQuery = Annotated[schemas.UserQuery, parsed(schemas.UserQuery)]
UserPostQuery = Annotated[post_schemas.UserPostQuery, parsed(post_schemas.UserPostQuery)]
RoleQuery = Annotated[role_schemas.RoleQuery, parsed(role_schemas.RoleQuery)]


@router.get("/me", response_model=schemas.Me)
async def get_me(caller: CurrentCaller, request: Request) -> Json:
    """Your account, with your roles and what they permit."""
    return Json.tagged(await accounts.read_me(reader_of(request), caller=caller))


@router.patch("/me", response_model=schemas.Me, responses=_STALE)
async def update_me(
    data: schemas.ProfileUpdate, user: MeForUpdate, caller: ActingCaller, session: SessionDep
) -> Json:
    """Change your profile; with `If-Match` only if it is still as you read it."""
    await users.update(session, user=user, data=data)
    return Json.tagged(await accounts.show_me(session, caller=caller))


@router.delete(
    "/me",
    status_code=204,
    responses=problems(WrongCurrentPassword, LastAdmin, PreconditionFailed),
)
async def delete_me(
    confirmation: Confirming,
    data: auth_schemas.CurrentPassword,
    session: SessionDep,
    if_match: IfMatch,
) -> None:
    """Delete your account and your posts. You are logged out everywhere."""
    user, caller = await credentials.begin_deletion(
        session, confirmation, current_password=data.current_password
    )
    await require_shown(if_match, partial(accounts.show_me, session, caller=caller))
    await users.soft_delete(session, user=user)


@router.put(
    "/me/password",
    status_code=204,
    responses=problems(WrongCurrentPassword),
    dependencies=[MAILS],
)
async def change_password(
    confirmation: Confirming,
    data: recovery_schemas.PasswordChange,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Change your password. You are logged out everywhere else."""
    await credentials.change_password(
        session,
        confirmation,
        policy=settings.password_policy,
        current_password=data.current_password,
        new_password=data.new_password,
    )


@router.put(
    "/me/email",
    status_code=202,
    response_class=Response,
    response_model=None,
    responses=problems(WrongCurrentPassword),
    dependencies=[MAILS],
)
async def change_email(
    confirmation: Confirming,
    data: recovery_schemas.EmailChange,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Ask for another address. It takes effect, and logs you out everywhere, when the link that
    is mailed to it is used."""
    await credentials.request_email_change(
        session,
        confirmation,
        keys=settings.keys,
        current_password=data.current_password,
        new_email=data.new_email,
    )


@router.get("", response_model=Page[schemas.User])
async def list_users(_: UsersReader, query: UserQuery, request: Request) -> Json:
    """List users; `deleted=true` shows the trash."""
    return listed(request, await accounts.list_users(pages_of(request), query=query))


@router.post(
    "",
    status_code=201,
    response_model=schemas.User,
    responses=problems(EmailTaken, NotFound),
    dependencies=[MAILS],
)
async def create_user(
    data: schemas.UserCreate,
    creation: UserCreation,
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
) -> Response:
    """Make an account for somebody, without a password: a mail invites them to set one.

    A repeated request (`Idempotency-Key`) is 404 once the user was deleted, and makes no other.
    """

    async def make() -> Json:
        user = await users.create(session, data=data, keys=settings.keys)
        shown = await accounts.show_all(session, user_id=user.id)
        return made(shown, at=location(request, user.id))

    return await creation.within(session, make)


@router.get("/{user_id}", response_model=schemas.User)
async def get_user(user_id: Id, _: UsersReader, request: Request) -> Json:
    """Read a user."""
    return Json.tagged(await accounts.read(reader_of(request), user_id=user_id))


@router.patch(
    "/{user_id}",
    response_model=schemas.ManagedUser,
    responses=problems(LastAdmin, PreconditionFailed),
)
async def update_user(
    data: schemas.UserUpdate, user: UserForUpdate, caller: UsersWriter, session: SessionDep
) -> Json:
    """Change a user; with `If-Match` only if they are still as you read them. Disabling one ends
    their sessions at once."""
    await users.update(session, user=user, data=data)
    return Json.tagged(await accounts.show(session, caller=caller, user_id=user.id))


@router.delete("/{user_id}", status_code=204, responses=problems(LastAdmin, PreconditionFailed))
async def delete_user(user: UserForUpdate, session: SessionDep) -> None:
    """Put a user and their posts in the trash and end their sessions."""
    await users.soft_delete(session, user=user)


@router.post(
    "/{user_id}/restore",
    response_model=schemas.ManagedUser,
    responses=problems(EmailTaken, PreconditionFailed),
)
async def restore_user(user: UserForRestore, caller: UsersWriter, session: SessionDep) -> Json:
    """Take a user out of the trash, with the posts that went in with them."""
    await users.restore(session, user=user)
    return Json.tagged(await accounts.show(session, caller=caller, user_id=user.id))


@router.get(
    "/{user_id}/posts",
    response_model=Page[post_schemas.Post],
    openapi_extra={"security": [{}]},
)
async def list_user_posts(
    user_id: Id, caller: MaybeCaller, query: UserPostQuery, request: Request
) -> Json:
    """List the posts of a user that you may see: none, also where there is no such user."""
    page = await posts.list_posts(pages_of(request), caller=caller, query=query, author_id=user_id)
    return listed(request, page)


@router.get("/{user_id}/roles", response_model=Page[role_schemas.Role])
async def list_user_roles(user_id: Id, _: UsersReader, query: RoleQuery, request: Request) -> Json:
    """List the roles of a user."""
    return listed(
        request, await roles.list_of_user(pages_of(request), user_id=user_id, query=query)
    )


@router.put("/{user_id}/roles/{role_id}", status_code=204, dependencies=[MAILS])
async def assign_role(
    user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep, settings: SettingsDep
) -> None:
    """Give a user a role; it counts from their next request on. If it permits them more, links
    that set their password (an invitation) end, and new ones are mailed."""
    user = await users.get_for_update(session, user_id=user_id)
    await roles.assign(session, caller=caller, user=user, role_id=role_id, keys=settings.keys)


@router.delete("/{user_id}/roles/{role_id}", status_code=204, responses=problems(LastAdmin))
async def revoke_role(user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep) -> None:
    """Take a role from a user; it counts from their next request on."""
    user = await users.get_for_update(session, user_id=user_id)
    await roles.revoke(session, caller=caller, user=user, role_id=role_id)

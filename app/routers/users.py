"""Users, for themselves and for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.exceptions import EmailTaken, LastAdmin, WrongCurrentPassword
from app.crud import posts, roles, users
from app.models.users import User
from app.routers.deps import (
    API,
    CurrentCaller,
    DatabaseDep,
    Id,
    MaybeCaller,
    MeForUpdate,
    PasswordsDep,
    RolesAssigner,
    SessionDep,
    UserForRestore,
    UserForUpdate,
    UsersReader,
    UsersWriter,
    created,
    pages_of,
    reader_of,
)
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import auth as auth_schemas
from app.schemas import posts as post_schemas
from app.schemas import roles as role_schemas
from app.schemas import users as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/users", tags=["users"])
UserQuery = Annotated[schemas.UserQuery, parsed(schemas.UserQuery)]
UserPostQuery = Annotated[post_schemas.UserPostQuery, parsed(post_schemas.UserPostQuery)]
RoleQuery = Annotated[role_schemas.RoleQuery, parsed(role_schemas.RoleQuery)]


@router.get("/me", response_model=schemas.Me)
async def get_me(caller: CurrentCaller, request: Request) -> Json:
    """Your account, with your roles and what they permit."""
    return Json(await users.read_me(reader_of(request), caller=caller))


@router.patch("/me", response_model=schemas.Me)
async def update_me(data: schemas.ProfileUpdate, user: MeForUpdate, session: SessionDep) -> User:
    """Change your profile."""
    return await users.update(session, user=user, data=data)


@router.delete("/me", status_code=204, responses=problems(WrongCurrentPassword, LastAdmin))
async def delete_me(
    data: auth_schemas.CurrentPassword,
    caller: CurrentCaller,
    database: DatabaseDep,
    session: SessionDep,
    passwords: PasswordsDep,
) -> None:
    """Delete your account and your posts. You are logged out everywhere."""
    await users.confirm_password(
        database, passwords=passwords, user_id=caller.user_id, password=data.current_password
    )
    user = await users.get_for_update(session, user_id=caller.user_id)
    await users.soft_delete(session, user=user)


@router.get("", response_model=Page[schemas.User])
async def list_users(_: UsersReader, query: UserQuery, request: Request) -> Json:
    """List users; `deleted=true` shows the trash."""
    return listed(request, await users.list_users(pages_of(request), query=query))


@router.post("", status_code=201, response_model=schemas.User, responses=problems(EmailTaken))
async def create_user(
    data: schemas.UserCreate,
    _: UsersWriter,
    session: SessionDep,
    request: Request,
    response: Response,
) -> User:
    """Make an account for somebody, without a password."""
    user = await users.create(session, data=data)
    created(request, response, user.id)
    return user


@router.get("/{user_id}", response_model=schemas.User)
async def get_user(user_id: Id, _: UsersReader, request: Request) -> Json:
    """Read a user."""
    return Json(await users.read(reader_of(request), user_id=user_id))


@router.patch("/{user_id}", responses=problems(LastAdmin))
async def update_user(
    data: schemas.UserUpdate, user: UserForUpdate, caller: UsersWriter, session: SessionDep
) -> schemas.ManagedUser:
    """Change a user. Disabling one ends their sessions at once."""
    changed = await users.update(session, user=user, data=data)
    return users.shown_to(caller, schemas.ManagedUser.model_validate(changed))


@router.delete("/{user_id}", status_code=204, responses=problems(LastAdmin))
async def delete_user(user: UserForUpdate, session: SessionDep) -> None:
    """Put a user and their posts in the trash and end their sessions."""
    await users.soft_delete(session, user=user)


@router.post("/{user_id}/restore", responses=problems(EmailTaken))
async def restore_user(
    user: UserForRestore, caller: UsersWriter, session: SessionDep
) -> schemas.ManagedUser:
    """Take a user out of the trash, with the posts that went in with them."""
    restored = await users.restore(session, user=user)
    return users.shown_to(caller, schemas.ManagedUser.model_validate(restored))


@router.get(
    "/{user_id}/posts",
    response_model=Page[post_schemas.Post],
    openapi_extra={"security": [{}]},
)
async def list_user_posts(
    user_id: Id, caller: MaybeCaller, query: UserPostQuery, request: Request
) -> Json:
    """List the posts of a user that you may see."""
    page = await posts.list_of_author(
        pages_of(request), caller=caller, author_id=user_id, query=query
    )
    return listed(request, page)


@router.get("/{user_id}/roles", response_model=Page[role_schemas.Role])
async def list_user_roles(user_id: Id, _: UsersReader, query: RoleQuery, request: Request) -> Json:
    """List the roles of a user."""
    return listed(
        request, await roles.list_of_user(pages_of(request), user_id=user_id, query=query)
    )


@router.put("/{user_id}/roles/{role_id}", status_code=204)
async def assign_role(user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep) -> None:
    """Give a user a role; it counts from their next request on."""
    user = await users.get_for_update(session, user_id=user_id)
    await roles.assign(session, caller=caller, user=user, role_id=role_id)


@router.delete("/{user_id}/roles/{role_id}", status_code=204, responses=problems(LastAdmin))
async def revoke_role(user_id: Id, role_id: Id, caller: RolesAssigner, session: SessionDep) -> None:
    """Take a role from a user; it counts from their next request on."""
    user = await users.get_for_update(session, user_id=user_id)
    await roles.revoke(session, caller=caller, user=user, role_id=role_id)

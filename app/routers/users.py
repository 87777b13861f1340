"""Users, for themselves and for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.core.exceptions import EmailTaken, LastAdmin, WrongCurrentPassword
from app.crud import posts, roles, users
from app.crud.base import PageOf
from app.models.posts import Post
from app.models.roles import Role
from app.models.users import User
from app.routers.deps import (
    API,
    CurrentCaller,
    CursorsDep,
    DatabaseDep,
    Id,
    LinksDep,
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
)
from app.routers.responses import problems
from app.schemas import auth as auth_schemas
from app.schemas import posts as post_schemas
from app.schemas import roles as role_schemas
from app.schemas import users as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/users", tags=["users"])


@router.get("/me", response_model=schemas.Me)
async def get_me(caller: CurrentCaller, session: SessionDep) -> User:
    """Your account, with your roles and what they permit."""
    return await users.get_me(session, user_id=caller.user_id)


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
async def list_users(
    query: Annotated[schemas.UserQuery, Query()],
    _: UsersReader,
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[User]:
    """List users; `deleted=true` shows the trash."""
    return links.to(await users.list_users(session, query=query, cursors=cursors))


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
async def get_user(user_id: Id, _: UsersReader, session: SessionDep) -> User:
    """Read a user."""
    return await users.get(session, user_id=user_id)


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
    user_id: Id,
    query: Annotated[post_schemas.UserPostQuery, Query()],
    caller: MaybeCaller,
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[Post]:
    """List the posts of a user that you may see."""
    return links.to(
        await posts.list_of_author(
            session, caller=caller, author_id=user_id, query=query, cursors=cursors
        )
    )


@router.get("/{user_id}/roles", response_model=Page[role_schemas.Role])
async def list_user_roles(
    user_id: Id,
    query: Annotated[role_schemas.RoleQuery, Query()],
    _: UsersReader,
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[Role]:
    """List the roles of a user."""
    return links.to(
        await roles.list_of_user(session, user_id=user_id, query=query, cursors=cursors)
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

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
from app.crud import credentials, post_listing, user_queries, users
from app.schemas import account_recovery as recovery_schemas
from app.schemas import auth as auth_schemas
from app.schemas import posts as post_schemas
from app.schemas import users as schemas
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    WAKE_MAIL_DELIVERY,
    ActingCaller,
    CurrentCaller,
    Id,
    MeForUpdate,
    OptionalCaller,
    SessionDep,
    SettingsDep,
    UserForRestore,
    UserForUpdate,
    UsersReader,
    UsersWriter,
    location,
    paginator_of,
    query_runner_of,
)
from app.web.error_responses import PRECONDITION_FAILED, error_responses
from app.web.etags import IfMatch, require_etag
from app.web.idempotency import IdempotentUserRequest
from app.web.pagination import page_response, query_params
from app.web.rate_limits import Confirming
from app.web.read_only import require_unchanged
from app.web.responses import FastJSONResponse, created_response
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/users", tags=["users"], route_class=StrictRoute)
UserQuery = Annotated[schemas.UserQuery, query_params(schemas.UserQuery)]
UserPostQuery = Annotated[post_schemas.UserPostQuery, query_params(post_schemas.UserPostQuery)]


@router.get("/me", response_model=schemas.Me)
async def get_me(caller: CurrentCaller, request: Request) -> FastJSONResponse:
    """Read your account.

    Return your account with your roles and the permissions they grant, from which a frontend
    can tell what to offer.
    """
    return FastJSONResponse.with_etag(
        await user_queries.read_me(query_runner_of(request), caller=caller)
    )


@router.patch("/me", response_model=schemas.Me, responses=PRECONDITION_FAILED)
async def update_me(
    data: schemas.ProfileUpdate, user: MeForUpdate, caller: ActingCaller, session: SessionDep
) -> FastJSONResponse:
    """Update your profile.

    Change the members that are sent; the others stay. Send `If-Match` to change the profile
    only if it is still as you read it.
    """
    await require_unchanged(data, partial(user_queries.show_me, session, caller=caller))
    await users.update(session, user=user, data=data)
    return FastJSONResponse.with_etag(await user_queries.show_me(session, caller=caller))


@router.delete(
    "/me",
    status_code=204,
    responses=error_responses(WrongCurrentPassword, LastAdmin, PreconditionFailed),
)
async def delete_me(
    confirmation: Confirming,
    data: auth_schemas.CurrentPassword,
    session: SessionDep,
    if_match: IfMatch,
) -> None:
    """Delete your account.

    Put your account and your posts in the trash, and end all your sessions. Confirm it with
    your current password.
    """
    user, caller = await credentials.begin_deletion(
        session, confirmation, current_password=data.current_password
    )
    await require_etag(if_match, partial(user_queries.show_me, session, caller=caller))
    await users.soft_delete(session, user=user)


@router.put(
    "/me/password",
    status_code=204,
    responses=error_responses(WrongCurrentPassword),
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def change_password(
    confirmation: Confirming,
    data: recovery_schemas.PasswordChange,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Change your password.

    Set a new password, and end all your other sessions. Confirm it with your current
    password.
    """
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
    responses=error_responses(WrongCurrentPassword),
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def change_email(
    confirmation: Confirming,
    data: recovery_schemas.EmailChange,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Request a change of your email address.

    Mail a link to the new address. The address changes, and all your sessions end, when the
    token of that mail is sent to `POST /api/v1/auth/email/verify`. Confirm it with your
    current password.
    """
    await credentials.request_email_change(
        session,
        confirmation,
        keys=settings.keys,
        current_password=data.current_password,
        new_email=data.new_email,
    )


@router.get("", response_model=Page[schemas.User])
async def list_users(_: UsersReader, query: UserQuery, request: Request) -> FastJSONResponse:
    """List users.

    Filter by words of the name or the email address, by role or by `is_active`;
    `deleted=true` lists the trash.
    """
    return page_response(request, await user_queries.list_users(paginator_of(request), query=query))


@router.post(
    "",
    status_code=201,
    response_model=schemas.User,
    responses=error_responses(EmailTaken, NotFound),
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def create_user(
    data: schemas.UserCreate,
    idempotent: IdempotentUserRequest,
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
) -> Response:
    """Create a user.

    The account has no password: a mail invites its owner to set one.

    A request that is repeated with its `Idempotency-Key` creates no second user. It is 404
    once the first was deleted.
    """

    async def make() -> FastJSONResponse:
        user = await users.create(session, data=data, keys=settings.keys)
        shown = await user_queries.show_all(session, user_id=user.id)
        return created_response(shown, at=location(request, user.id))

    return await idempotent.run_in_session(session, make)


@router.get("/{user_id}", response_model=schemas.User)
async def get_user(user_id: Id, _: UsersReader, request: Request) -> FastJSONResponse:
    """Read a user.

    Return the account with its roles. Send its `ETag` as `If-Match` to change it.
    """
    return FastJSONResponse.with_etag(
        await user_queries.read(query_runner_of(request), user_id=user_id)
    )


@router.patch(
    "/{user_id}",
    response_model=schemas.ManagedUser,
    responses=error_responses(LastAdmin, PreconditionFailed),
)
async def update_user(
    data: schemas.UserUpdate, user: UserForUpdate, caller: UsersWriter, session: SessionDep
) -> FastJSONResponse:
    """Update a user.

    Change the members that are sent; the others stay. A user who is disabled (`is_active:
    false`) loses all sessions at once. Send `If-Match` to change the user only if it is still
    as you read it.
    """
    show = partial(user_queries.show, session, caller=caller, user_id=user.id)
    await require_unchanged(data, show)
    await users.update(session, user=user, data=user_queries.as_shown(data, caller=caller))
    return FastJSONResponse.with_etag(await show())


@router.delete(
    "/{user_id}", status_code=204, responses=error_responses(LastAdmin, PreconditionFailed)
)
async def delete_user(user: UserForUpdate, session: SessionDep) -> None:
    """Delete a user.

    Put the user and their posts in the trash, and end their sessions. `POST
    /api/v1/users/{user_id}/restore` takes them out again.
    """
    await users.soft_delete(session, user=user)


@router.post(
    "/{user_id}/restore",
    response_model=schemas.ManagedUser,
    responses=error_responses(EmailTaken, PreconditionFailed),
)
async def restore_user(
    user: UserForRestore, caller: UsersWriter, session: SessionDep
) -> FastJSONResponse:
    """Restore a user.

    Take the user out of the trash, with the posts that were deleted with the account.
    """
    await users.restore(session, user=user)
    return FastJSONResponse.with_etag(
        await user_queries.show(session, caller=caller, user_id=user.id)
    )


@router.get(
    "/{user_id}/posts",
    response_model=Page[post_schemas.Post],
    openapi_extra={"security": [{}]},
)
async def list_user_posts(
    user_id: Id, caller: OptionalCaller, query: UserPostQuery, request: Request
) -> FastJSONResponse:
    """List the posts of a user.

    List the posts that you may see. The page is empty if there are none, and also if there is
    no such user.
    """
    page = await post_listing.list_posts(
        paginator_of(request), caller=caller, query=query, author_id=user_id
    )
    return page_response(request, page)

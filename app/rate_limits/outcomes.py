"""What became of a request that tried something: decided, refused for its input, or undecided."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.core.exceptions import (
    AppError,
    IdempotencyKeyReused,
    InternalError,
    InvalidCredentials,
    InvalidOneTimeToken,
    InvalidRefreshToken,
    RequestInProgress,
    TooManyRequests,
    Unavailable,
    WrongCurrentPassword,
)

WRONG = (
    *(InvalidCredentials, InvalidRefreshToken, InvalidOneTimeToken, WrongCurrentPassword),
    IdempotencyKeyReused,
)
_UNDECIDED = (RequestInProgress, TooManyRequests, InternalError, Unavailable)
# What the framework refuses, and what the app does, before anything is looked at.
_INVALID = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


def was_tried(error: BaseException | None) -> bool:
    """Return whether an attempt came to a decision. Invalid input did not, nor what failed on our
    side: a caller who tries again through an outage has used nothing up."""
    if error is None:
        return True
    return isinstance(error, AppError) and not (isinstance(error, _UNDECIDED) or is_invalid(error))


def is_invalid(error: BaseException) -> bool:
    """Return whether a request was refused for its input alone, before any secret was verified."""
    if isinstance(error, RequestValidationError):
        return True
    return (
        isinstance(error, HTTPException)
        and error.status_code in _INVALID
        and not isinstance(error, WRONG)
    )

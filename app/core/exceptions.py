"""The error tree: every refusal of the API, on one screen.

    AppError                     status  code
    ├── BadRequest                  400  bad_request
    │   ├── InvalidCursor           400  invalid_cursor
    │   ├── InvalidOneTimeToken     400  invalid_one_time_token
    │   ├── UntrustedHost           400  untrusted_host
    │   └── CorsNotAllowed          400  cors_not_allowed
    ├── Unauthenticated             401  not_authenticated
    │   ├── InvalidToken            401  invalid_token
    │   │   └── InvalidRefreshToken 401  invalid_refresh_token
    │   └── InvalidCredentials      401  invalid_credentials
    ├── Forbidden                   403  forbidden
    │   ├── InsufficientScope       403  insufficient_scope
    │   ├── RegistrationDisabled    403  registration_disabled
    │   └── WrongCurrentPassword    403  invalid_current_password
    ├── NotFound                    404  not_found
    ├── MethodNotAllowed            405  method_not_allowed
    ├── Conflict                    409  conflict
    │   ├── RequestInProgress           409  conflict
    │   ├── EmailTaken              409  email_taken
    │   ├── RoleNameTaken           409  role_name_taken
    │   ├── LastAdmin               409  last_admin
    │   ├── SystemRole              409  system_role
    │   ├── AuthorDeleted           409  author_deleted
    │   └── MailAlreadySent         409  mail_already_sent
    ├── PreconditionFailed          412  precondition_failed
    ├── PayloadTooLarge             413  payload_too_large
    ├── Invalid                     422  validation_error
    │   └── IdempotencyKeyReused    422  idempotency_key_reused
    ├── TooManyRequests             429  too_many_requests
    ├── HeadTooLarge                431  request_header_fields_too_large
    ├── InternalError               500  internal_error
    └── Unavailable                 503  service_unavailable
        ├── Overloaded              503  service_unavailable
        ├── NotReady                503  not_ready
        └── NotMigrated             503  not_migrated

Title, detail, cause and remedy of each code live in `app/locales/`; `/errors/<code>` shows them.
`web/problems.py` turns an error into its response.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from starlette.exceptions import HTTPException

RETRY_AFTER_SECONDS = "2"


class AppError(HTTPException):
    """A refusal with a status and a stable code. `params` fill the placeholders of its text."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, *, headers: Mapping[str, str] | None = None, **params: object) -> None:
        super().__init__(self.status, detail=self.code, headers=dict(headers or {}))
        self.params = params


class BadRequest(AppError):
    status, code = 400, "bad_request"


class InvalidCursor(BadRequest):
    code = "invalid_cursor"


class InvalidOneTimeToken(BadRequest):
    code = "invalid_one_time_token"


class UntrustedHost(BadRequest):
    code = "untrusted_host"


class CorsNotAllowed(BadRequest):
    """A preflight asks for what scripts may not do; `refused` is the header that says so."""

    code = "cors_not_allowed"

    def __init__(self, refused: str) -> None:
        super().__init__(refused=refused)


class Unauthenticated(AppError):
    status, code = 401, "not_authenticated"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class InvalidToken(AppError):
    status, code = 401, "invalid_token"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class InvalidRefreshToken(InvalidToken):
    code = "invalid_refresh_token"


class InvalidCredentials(Unauthenticated):
    code = "invalid_credentials"


class Forbidden(AppError):
    status, code = 403, "forbidden"


class InsufficientScope(Forbidden):
    """The caller lacks permissions; `missing` are their names, in the order to show."""

    code = "insufficient_scope"

    def __init__(self, missing: Sequence[str]) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{" ".join(missing)}"'
        super().__init__(headers={"WWW-Authenticate": challenge}, permission=", ".join(missing))


class RegistrationDisabled(Forbidden):
    code = "registration_disabled"


class WrongCurrentPassword(Forbidden):
    code = "invalid_current_password"


class NotFound(AppError):
    status, code = 404, "not_found"


class MethodNotAllowed(AppError):
    status, code = 405, "method_not_allowed"


class Conflict(AppError):
    status, code = 409, "conflict"


class RequestInProgress(Conflict):
    """The same request is being worked on; nothing was decided about this one."""


class EmailTaken(Conflict):
    code = "email_taken"


class RoleNameTaken(Conflict):
    code = "role_name_taken"


class LastAdmin(Conflict):
    code = "last_admin"


class SystemRole(Conflict):
    code = "system_role"


class AuthorDeleted(Conflict):
    code = "author_deleted"


class MailAlreadySent(Conflict):
    code = "mail_already_sent"


class PreconditionFailed(AppError):
    status, code = 412, "precondition_failed"


class PayloadTooLarge(AppError):
    status, code = 413, "payload_too_large"


@dataclasses.dataclass(frozen=True, slots=True)
class FieldError:
    """One defect of one field: `type` names its text, `values` fill the text's placeholders."""

    field: str
    type: str
    values: Mapping[str, object] = dataclasses.field(default_factory=dict)


class Invalid(AppError):
    """Input that breaks a rule; lists each defect."""

    status, code = 422, "validation_error"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self.errors = errors


class IdempotencyKeyReused(Invalid):
    """A key that came with another request before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__([FieldError("Idempotency-Key", self.code)])


class TooManyRequests(AppError):
    """Too many attempts; `retry_after` in seconds, rounded up."""

    status, code = 429, "too_many_requests"

    def __init__(self, *, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)}, seconds=retry_after)


class HeadTooLarge(AppError):
    """The request line and the headers go on for too long; the connection ends with this."""

    status, code = 431, "request_header_fields_too_large"


class InternalError(AppError):
    status, code = 500, "internal_error"


class Unavailable(AppError):
    status, code = 503, "service_unavailable"

    def __init__(self, **params: object) -> None:
        super().__init__(headers={"Retry-After": RETRY_AFTER_SECONDS}, **params)


class Overloaded(Unavailable):
    """More of what is expensive (hashing passwords, searches) is asked for than can be done in
    time; nothing was tried."""


class NotReady(Unavailable):
    """This process cannot serve; `parts` names what is missing."""

    code = "not_ready"


class NotMigrated(Unavailable):
    """The database answers, and its tables are not, or not yet all, those of this version."""

    code = "not_migrated"


def all_errors(base: type[AppError] = AppError) -> Iterator[type[AppError]]:
    """Yield every error of the tree, parents first."""
    for child in base.__subclasses__():
        yield child
        yield from all_errors(child)

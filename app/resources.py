"""What is served: each resource is declared here, and nowhere else.

`main` serves the routers in this order, the OpenAPI document has the tags, and the tests ask for an
entry in `tests/contract/resources.py` for each. Tables register themselves when `app.models` is
imported. `create_app(resources=[*RESOURCES, …])` serves more, from packages outside `app/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter

from app.core.permissions import Permission
from app.models.audit_events import AuditEvent
from app.models.base import Base
from app.models.idempotency_keys import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.refresh_tokens import RefreshToken
from app.models.roles import Role, RolePermission
from app.models.search import PostSearch, TagSearch, UserSearch
from app.models.sessions import LoginSession
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole
from app.routers import (
    account_recovery,
    audit_events,
    auth,
    jwks,
    operations,
    outbox,
    posts,
    roles,
    sessions,
    tags,
    user_roles,
    users,
)


@dataclass(frozen=True)
class Resource:
    """A router, and what belongs to it.

    `description` is that of the router's tag; of several routers with one tag, the first has it.
    `granted_to_users` are the permissions that a migration gives to the role `user`. `locales` is a
    directory of texts like `app/locales/`, for a resource from outside `app/`.
    """

    router: APIRouter
    description: str = ""
    models: tuple[type[Base], ...] = ()
    permissions: tuple[Permission, ...] = ()
    granted_to_users: tuple[Permission, ...] = ()
    locales: Path | None = None

    @property
    def tag(self) -> str:
        """Return the tag of the router's operations."""
        return str(self.router.tags[0])


# In the order in which a frontend is built: log in, show the account, then the content; what
# administrators and operators use comes last.
RESOURCES: tuple[Resource, ...] = (
    Resource(
        auth.router,
        "Register, log in, refresh tokens, reset passwords and end sessions.",
    ),
    Resource(sessions.router, models=(LoginSession, RefreshToken)),
    Resource(account_recovery.router, models=(OneTimeToken,)),
    Resource(
        users.router,
        "Your own account, and all accounts for administrators.",
        models=(User, UserRole, UserSearch),
        permissions=(Permission.users_read, Permission.users_write),
    ),
    Resource(user_roles.router),
    Resource(
        posts.router,
        "Posts: drafts of their authors, and what is published.",
        models=(Post, PostTag, PostSearch),
        permissions=(Permission.posts_write, Permission.posts_moderate),
        granted_to_users=(Permission.posts_write,),
    ),
    Resource(tags.router, "Tags of published posts, with counts.", models=(Tag, TagSearch)),
    Resource(
        roles.router,
        "Roles, and the permissions they grant.",
        models=(Role, RolePermission),
        permissions=(Permission.roles_read, Permission.roles_write, Permission.roles_assign),
    ),
    Resource(
        audit_events.router,
        "Health, public keys, the audit trail and the email outbox.",
        models=(AuditEvent,),
        permissions=(Permission.audit_read,),
    ),
    Resource(
        outbox.router,
        models=(Mail,),
        permissions=(Permission.outbox_read, Permission.outbox_write),
    ),
    Resource(operations.router, models=(IdempotencyKey,)),
    Resource(jwks.router),
)


def tags_of(resources: Sequence[Resource]) -> list[dict[str, str]]:
    """Return the tags of the OpenAPI document, in the order of the resources."""
    return [
        {"name": each.tag, "description": each.description}
        for each in resources
        if each.description
    ]

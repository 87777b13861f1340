"""The examples of the OpenAPI document: requests to the demo data, and what they are answered.

`scripts/seed` makes the demo data: 20 users and 200 posts beside the first admin, who sends the
requests. The body of a request has the examples of its fields. The body of an answer is the
example of its schema, with what the request sets and what the operation changes. A test sends the
requests and compares the answers. What has no entry here is built from the schema alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from app.core import i18n
from app.core.permissions import SELF_SCOPED_PERMISSIONS, Permission
from app.schemas.base import RequestModel

Body = dict[str, Any]
_JSON = "application/json"
_SEEDED, _WRITTEN = "2026-11-16T07:12:04.557466Z", "2026-11-20T18:00:00.000000Z"
_NOW, _LATER = "2026-11-21T09:30:00.000000Z", "2026-12-21T09:30:00.000000Z"
_PERMISSIONS = [*map(str, Permission)]
_TOKEN, _NEXT_TOKEN = (
    "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "5s4_9xBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
)
_USER_ROLE = {"id": 2, "name": "user"}
_MEMBER: Body = {
    "id": 1,
    "email": "admin@example.com",
    "name": "Admin",
    "phone": None,
    "birth_date": None,
    "locale": "en",
    "is_active": True,
    "email_verified": False,
    "created_at": _SEEDED,
    "updated_at": _SEEDED,
}
_ADMIN: Body = _MEMBER | {"roles": [{"id": 1, "name": "admin"}, _USER_ROLE], "deleted_at": None}
_USER: Body = _ADMIN | {
    "id": 20,
    "email": "demo20@example.com",
    "name": "Olivia Smith",
    "locale": "es",
    "roles": [_USER_ROLE],
}
_ROLE: Body = {
    "id": 2,
    "name": "user",
    "description": "Given at registration.",
    "permissions": [str(each) for each in Permission if each in SELF_SCOPED_PERMISSIONS],
    "is_system": True,
    "user_count": 21,
    "created_at": _SEEDED,
    "updated_at": _SEEDED,
}
_ADMIN_ROLE: Body = _ROLE | {
    "id": 1,
    "name": "admin",
    "description": "Everything, always.",
    "permissions": _PERMISSIONS,
    "user_count": 1,
}
_MAIL: Body = {
    "id": 1,
    "kind": "welcome",
    "recipient": "ana@example.com",
    "locale": "en",
    "subject": "Welcome, Ana García",
    "text": None,
    "html": None,
    "message_id": "<5f0c1d9e7a3b4c2d@example.com>",
    "state": "sent",
    "attempts": 1,
    "next_attempt_at": None,
    "sent_at": _NOW,
    "last_error": None,
    "created_at": _NOW,
}
# By schema: what reading it answers.
ANSWERS: dict[str, Body] = {
    "User": _USER,
    "ManagedUser": _USER,
    "Me": _ADMIN | {"permissions": _PERMISSIONS},
    "Member": _MEMBER,
    "Role": _ROLE,
    "PermissionInfo": {
        "name": "audit:read",
        "description": i18n.text("en", "permissions", Permission.audit_read),
    },
    "Post": {
        "id": 110,
        "title": "What the tide leaves behind",
        "content": "Una vecina me prestó la herramienta buena y eso lo cambió todo. I took notes, "
        "mostly of what not to do again. A neighbour lent me the right tool, and that changed "
        "everything. Todo empezó con una idea pequeña y una tarde libre. I took notes, mostly of "
        "what not to do again. A neighbour lent me the right tool, and that changed everything.",
        "status": "published",
        "published_at": _WRITTEN,
        "tags": ["books"],
        "author": {"id": 20, "name": "Olivia Smith"},
        "version": 1,
        "created_at": _WRITTEN,
        "updated_at": _WRITTEN,
        "deleted_at": None,
    },
    "TagCount": {"id": 1, "name": "books", "post_count": 46},
    "Token": {
        "access_token": "eyJhbGciOiJIUzI1NiIs….eyJpc3MiOiJjaW1pZW50….tRLSDUbMm45ZDX…",
        "token_type": "bearer",
        "expires_in": 900,
        "refresh_token": _TOKEN,
        "scope": " ".join(sorted(_PERMISSIONS)),
    },
    "Session": {
        "id": 1,
        "created_at": _NOW,
        "last_used_at": _NOW,
        "expires_at": _LATER,
        "ip": "127.0.0.1",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "current": True,
    },
    "AuditEvent": {
        "id": 2,
        "created_at": _NOW,
        "act": "login.succeeded",
        "actor_id": 1,
        "subject_type": "user",
        "subject_id": 1,
        "ip": "127.0.0.1",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
        "details": {"session_id": 1},
    },
    "Mail": _MAIL,
    # The key of RFC 7517, appendix A.1.
    "PublicKey": {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "alg": "ES256",
        "use": "sig",
        "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
    },
}
# By schema: a request that does not have all its fields.
_REQUESTS: dict[str, Body] = {
    "LoginForm": {
        "grant_type": "password",
        "username": "admin@example.com",
        "password": "Correct-Horse-7-Battery",
    },
}
# By operation: the first items of a listing, and how many there are.
_LISTED: dict[str, tuple[list[Body], int]] = {
    "list_users": ([_ADMIN], 21),
    "list_roles": ([_ADMIN_ROLE, _ROLE], 2),
    "list_role_users": ([_MEMBER], 21),
    "list_permissions": ([ANSWERS["PermissionInfo"]], len(Permission)),
    "list_posts": ([ANSWERS["Post"]], 167),
    "list_user_posts": ([ANSWERS["Post"]], 10),
    "list_tags": ([ANSWERS["TagCount"]], 8),
    "list_audit_events": ([ANSWERS["AuditEvent"]], 2),
}
_NEW: Body = {"created_at": _NOW, "updated_at": _NOW}
_NEW_USER: Body = _NEW | {"id": 22, "locale": "en"}
_NEW_ROLE: Body = _NEW | {"id": 3, "is_system": False, "user_count": 0}
# By operation: what it changes in the answer beside what the request sets.
_CHANGED: dict[str, Body] = {
    "register": _NEW_USER,
    "refresh": {"refresh_token": _NEXT_TOKEN},
    "update_me": {"updated_at": _NOW},
    "create_user": _NEW_USER,
    "update_user": {"updated_at": _NOW},
    "create_role": _NEW_ROLE,
    "update_role": _NEW_ROLE,
    "create_post": _NEW | {"id": 201, "published_at": _NOW, "author": {"id": 1, "name": "Admin"}},
    "update_post": {"version": 2, "updated_at": _NOW},
    "unpublish_post": {
        "status": "draft",
        "published_at": None,
        "version": 2,
        "updated_at": _NOW,
    },
    "restore_post": {"version": 3, "updated_at": _NOW},
    "retry_mail": {"state": "pending", "attempts": 0, "next_attempt_at": _NOW, "sent_at": None},
}
_IDS = {"user_id": 20, "role_id": 2, "post_id": 110, "session_id": 1, "mail_id": 1}
# What is no system role.
_IDS_OF = {operation: {"role_id": _NEW_ROLE["id"]} for operation in ("update_role", "delete_role")}


def add(document: dict[str, Any]) -> None:
    """Add an example to the body of every request and of every success, and to every path."""
    schemas = document["components"]["schemas"]
    models = {model.__name__: model for model in _models(RequestModel)}
    for item in document["paths"].values():
        for operation in item.values():
            _add_ids(operation)
            sent = _add_request(operation, schemas, models)
            for status, response in operation["responses"].items():
                shown = response.get("content", {}).get(_JSON)
                if status < "300" and shown:
                    shown["example"] = _answer(operation["operationId"], shown, sent, schemas)


def _models(of: type[RequestModel]) -> Iterator[type[RequestModel]]:
    for model in of.__subclasses__():
        yield model
        yield from _models(model)


def _add_ids(operation: dict[str, Any]) -> None:
    ids = _IDS | _IDS_OF.get(operation["operationId"], {})
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["example"] = ids.get(parameter["name"], 1)


def _add_request(
    operation: dict[str, Any],
    schemas: dict[str, Any],
    models: Mapping[str, type[RequestModel]],
) -> Body:
    """Return what the request sets: its example, as validation leaves it."""
    if "requestBody" not in operation:
        return {}
    (content,) = operation["requestBody"]["content"].values()
    name = _name(content["schema"])
    content["example"] = _REQUESTS.get(name) or _value_of(content["schema"], schemas)
    if name not in models:
        return {}
    sent: Body = {}
    # The document is served even so; tests find an example that does not fit.
    with suppress(ValidationError):
        sent = models[name].model_validate(content["example"]).model_dump(mode="json")
    return sent


def _answer(operation: str, shown: dict[str, Any], sent: Body, schemas: dict[str, Any]) -> Body:
    answer: Body = _value_of(shown["schema"], schemas)
    if _name(shown["schema"]).startswith("Page_"):
        return answer | _page(*_LISTED.get(operation, (answer["items"], 1)))
    kept = {name: value for name, value in sent.items() if name in answer}
    return answer | kept | _CHANGED.get(operation, {})


def _page(items: list[Body], total: int) -> Body:
    """Return a first page that was asked for with as many items as it shows."""
    return {
        "items": items,
        "total": total,
        "total_is_exact": True,
        "page": 1,
        "page_size": len(items),
        "total_pages": total // len(items),
        "has_next": total > len(items),
        "has_prev": False,
        "next_cursor": "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC" if total > len(items) else None,
    }


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _value_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return a value that fits a schema: of the examples in it, as far as there are any."""
    stated = schema.get("examples") or schema.get("enum")
    if stated or "const" in schema:
        return stated[0] if stated else schema["const"]
    if "anyOf" in schema:
        return _value_of(schema["anyOf"][0], schemas)
    if name := _name(schema):
        return ANSWERS.get(name) or _value_of(schemas[name], schemas)
    if schema.get("type") == "array":
        return [_value_of(schema["items"], schemas)]
    if "properties" in schema:
        return _members_of(schema, schemas)
    return {"boolean": True, "integer": 1, "object": {}}.get(schema.get("type", ""), "text")


def _members_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Body:
    return {
        name: _value_of(member, schemas)
        for name, member in schema["properties"].items()
        if not member.get("readOnly")
    }

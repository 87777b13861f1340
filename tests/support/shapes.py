"""The keys that bodies have by the contract: these, no more and no fewer."""

from __future__ import annotations

from typing import Any

# The names of an object's keys, each with the shape of what is in it where that is an object.
Shape = dict[str, "Shape | None"]


def _keys(names: str, **inner: Shape) -> Shape:
    return dict.fromkeys(names.split()) | inner


def _page(item: Shape) -> Shape:
    names = "total total_is_exact page page_size total_pages has_next has_prev next_cursor"
    return _keys(names, items=item)


USER = _keys(
    "id email name phone birth_date locale is_active email_verified"
    " created_at updated_at deleted_at",
    roles=_keys("id name"),
)
ME = USER | _keys("permissions")
MEMBER = _keys(
    "id email name phone birth_date locale is_active email_verified created_at updated_at"
)
ROLE = _keys("id name description permissions is_system user_count created_at updated_at")
POST = _keys(
    "id title content status published_at tags version created_at updated_at deleted_at",
    author=_keys("id name"),
)
MAIL = _keys(
    "id kind recipient locale subject text html message_id state attempts next_attempt_at"
    " sent_at last_error created_at"
)
TOKEN = _keys("access_token token_type expires_in refresh_token")
SESSION = _keys("id created_at last_used_at expires_at ip user_agent current")
# An object with any keys.
OPEN: Shape = {"*": None}
EVENT = _keys(
    "id created_at act actor_id subject_type subject_id ip user_agent request_id", details=OPEN
)
HEALTH = _keys("status")
PROBLEM = _keys("type title status detail code instance request_id")
INVALID = PROBLEM | _keys("", errors=_keys("field message type"))

SHAPES: dict[str, Shape | None] = {
    "register": USER,
    "login": TOKEN,
    "refresh": TOKEN,
    "logout": None,
    "list_sessions": _page(SESSION),
    "end_session": None,
    "end_other_sessions": None,
    "forgot_password": None,
    "reset_password": None,
    "verify_email": None,
    "resend_verification": None,
    "get_me": ME,
    "update_me": ME,
    "change_password": None,
    "change_email": None,
    "delete_me": None,
    "list_users": _page(USER),
    "create_user": USER,
    "get_user": USER,
    "update_user": USER,
    "delete_user": None,
    "restore_user": USER,
    "list_user_posts": _page(POST),
    "list_user_roles": _page(ROLE),
    "assign_role": None,
    "revoke_role": None,
    "list_permissions": _page(_keys("name description")),
    "list_roles": _page(ROLE),
    "create_role": ROLE,
    "get_role": ROLE,
    "update_role": ROLE,
    "delete_role": None,
    "list_role_users": _page(MEMBER),
    "list_posts": _page(POST),
    "create_post": POST,
    "get_post": POST,
    "update_post": POST,
    "delete_post": None,
    "restore_post": POST,
    "publish_post": POST,
    "unpublish_post": POST,
    "list_tags": _page(_keys("id name post_count")),
    "list_audit_events": _page(EVENT),
    "list_mails": _page(MAIL),
    "retry_mail": MAIL,
    "list_keys": _keys("", keys=_keys("kty crv x y alg use kid")),
    "health": HEALTH,
    "ready": HEALTH,
}


def check_shape(body: Any, shape: Shape, where: str) -> None:
    """Fail unless an object has exactly the keys of a shape, all the way down."""
    if shape is OPEN:
        assert isinstance(body, dict), where
        return
    assert set(body) == set(shape), where
    for name, inner in shape.items():
        if inner is None:
            assert not _holds_objects(body[name]), f"{where}.{name}: an object nobody promised"
            continue
        for row in body[name] if isinstance(body[name], list) else [body[name]]:
            check_shape(row, inner, f"{where}.{name}")


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
    )

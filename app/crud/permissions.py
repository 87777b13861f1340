"""The permissions roles can grant: declared in code, paged like the other resources."""

from __future__ import annotations

from app.core import i18n
from app.core.context import request_context
from app.core.permissions import Permission
from app.db.cursors import CursorSigner
from app.db.pagination import PageResult, page_of
from app.db.totals import Total
from app.schemas.roles import PermissionInfo, PermissionQuery

_LISTING = "permissions"


def list_permissions(
    *, query: PermissionQuery, cursors: CursorSigner
) -> PageResult[PermissionInfo]:
    """Return a page of the permissions, described in the request's language."""
    names: list[str] = sorted(Permission, reverse=query.sort.startswith("-"))
    total: Total | None = Total(len(names))
    sort: str = query.sort
    if query.cursor is None:
        skipped = (query.page - 1) * query.page_size
        found = names[skipped : skipped + query.page_size + 1]
    else:
        sort, last, _ = cursors.load(_LISTING, ("name",), query)
        names.sort(reverse=sort.startswith("-"))
        # Compared: there may be no permission of this name any more.
        behind = [name for name in names if (name < last if sort[0] == "-" else name > last)]
        found, total = behind[: query.page_size + 1], None
    locale = request_context().locale
    return page_of(
        query,
        found,
        total=total,
        item=lambda name: PermissionInfo(
            name=Permission(name), description=i18n.text(locale, "permissions", name)
        ),
        position=lambda name: cursors.dump(_LISTING, sort, name, 0),
    )

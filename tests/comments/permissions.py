"""What a role can grant about comments."""

from __future__ import annotations

from app.core.permissions import Permission

COMMENTS_WRITE = Permission.declare("comments:write", self_scoped=True)

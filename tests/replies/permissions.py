"""What a role can grant about replies."""

from __future__ import annotations

from app.core.permissions import Permission

REPLIES_WRITE = Permission.declare("replies:write", self_scoped=True)

"""Writes to the row on which an invariant rests, so that the invariant also holds on a cluster.

Row locks are a node's own. Transactions on two nodes conflict only in rows that both write, so
both sides of a race write the row that both lock (docs/adr/0026-invariants-under-certification.md).
On a single server the lock is enough, and nothing is written.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.transactions import Transaction, session_transaction
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.users import User


def touch_session(transaction: Transaction, session_id: int) -> None:
    """Conflict with whatever ends a (locked) session, or takes a role from its user."""
    # Checked first: each new post runs this, and building a condition takes time.
    if transaction.is_cluster:
        transaction.touch(LoginSession, LoginSession.id == session_id)


def touch_rights(transaction: Transaction, admin_role_id: int) -> None:
    """Conflict with every other transaction that can give or take rights."""
    transaction.touch(Role, Role.id == admin_role_id)


async def touch_user(session: AsyncSession, user_id: int) -> None:
    """Conflict with whatever else writes the row of a (locked) user."""
    await _touch(session, User, User.id == user_id)


async def touch_sessions_of_user(session: AsyncSession, user_id: int) -> None:
    """Conflict with every write that a user is authorised for at this time."""
    live = (LoginSession.user_id == user_id) & LoginSession.ended_at.is_(None)
    await _touch(session, LoginSession, live)


async def _touch(session: AsyncSession, model: type[Any], which: ColumnElement[bool]) -> None:
    await session_transaction(session, partial(Transaction.touch, model=model, which=which))

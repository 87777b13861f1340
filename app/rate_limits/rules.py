"""Limits on attempts: the doors, and the limits of each (docs/adr/0016-throttling.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.rate_limits.local_counters import Window


class LimitedAction(StrEnum):
    """What is tried: `password` is one's own, asked for again by an operation of a login; `repeat`
    a registration that was answered before, which holds the password of the account; `write`
    what writes posts."""

    login = "login"
    password = "password"  # noqa: S105 no secret
    refresh = "refresh"
    reset = "reset"
    verify = "verify"
    register = "register"
    forgot = "forgot"
    resend = "resend"
    repeat = "repeat"
    write = "write"


class LimitScope(StrEnum):
    """Whose tries are counted together."""

    network = "network"  # an IPv4 address, or the /64 of an IPv6 address
    account = "account"  # an account, from one network or within one session
    strangers = "strangers"  # an account, from all networks that it is not known from
    everyone = "everyone"  # the door, but for networks that an account is known from
    address = "address"  # mails to an address, or registrations of it
    invalid = "invalid"  # requests of a network whose input was refused, at all doors together
    changes = "changes"  # changes of one's password or address: each is reported by mail


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many tries within so many seconds, from the first one on."""

    tries: int
    seconds: int


class Bucket(Window):
    """Tries that are counted together; `key` gives away neither address nor network."""

    __slots__ = ("counted", "quota", "whom")

    def __init__(self, whom: LimitScope, quota: RateLimit, key: str, owner: str) -> None:
        super().__init__(key, quota.seconds, quota.tries, owner)
        self.whom = whom
        self.quota = quota
        self.counted = 0

    @property
    def left(self) -> int:
        """Return how many tries are left in the present window."""
        return max(0, self.quota.tries - self.counted)

    def headers(self, door: LimitedAction, *, left: int, seconds: int) -> dict[str, str]:
        """Return what draft-ietf-httpapi-ratelimit-headers has an answer say of a limit."""
        name = f'"{door}-{self.whom}"'
        return {
            "RateLimit-Policy": f"{name};q={self.quota.tries};w={self.quota.seconds}",
            "RateLimit": f"{name};r={left};t={seconds}",
        }


MINUTE, _QUARTER, _HOUR, _DAY = 60, 900, 3_600, 86_400
# A client that goes on failing waits for a quarter of an hour, then an hour, then a day.
_GROWING = (RateLimit(10, _QUARTER), RateLimit(20, _HOUR), RateLimit(40, _DAY))
_A_FEW_MAILS = (RateLimit(3, _HOUR),)
# No limit for all together where the wrong tries of some would keep the right ones of others out.
_MAILS = {LimitScope.network: (RateLimit(20, _HOUR),), LimitScope.address: _A_FEW_MAILS}
# Tokens cannot be guessed: what is limited is the work that wrong ones make.
_TOKENS = {LimitScope.network: (RateLimit(100, _QUARTER),)}
_LOGINS = {
    LimitScope.network: (RateLimit(100, _QUARTER),),
    LimitScope.account: _GROWING,
    LimitScope.strangers: (RateLimit(10, _QUARTER), RateLimit(100, _DAY)),
    LimitScope.everyone: (RateLimit(600, MINUTE),),
}
# Far more than forms with mistakes make, or a client that has to be mended.
_INVALID = {LimitScope.invalid: (RateLimit(300, _QUARTER),)}
_BY_DOOR: Mapping[LimitedAction, Mapping[LimitScope, tuple[RateLimit, ...]]] = {
    LimitedAction.login: _LOGINS,
    LimitedAction.repeat: _LOGINS,
    LimitedAction.password: {
        LimitScope.network: (RateLimit(100, _QUARTER),),
        LimitScope.account: _GROWING,
        LimitScope.changes: (RateLimit(5, _HOUR), RateLimit(10, _DAY)),
        LimitScope.address: _A_FEW_MAILS,
    },
    LimitedAction.refresh: _TOKENS,
    LimitedAction.reset: _TOKENS,
    LimitedAction.verify: _TOKENS,
    LimitedAction.register: {
        LimitScope.network: (RateLimit(60, _HOUR), RateLimit(300, _DAY)),
        LimitScope.address: _A_FEW_MAILS,
        LimitScope.everyone: (RateLimit(5_000, _HOUR),),
    },
    LimitedAction.forgot: _MAILS,
    LimitedAction.resend: _MAILS,
    # The setting POSTS_PER_MINUTE says how many.
    LimitedAction.write: {LimitScope.account: (RateLimit(600, MINUTE),)},
}
RULES: Mapping[LimitedAction, Mapping[LimitScope, tuple[RateLimit, ...]]] = {
    door: rules if door is LimitedAction.write else {**rules, **_INVALID}
    for door, rules in _BY_DOOR.items()
}
# A right token is never refused: looking it up is cheap. Limited is who goes on with wrong ones.
AFTERWARDS = frozenset({LimitedAction.refresh, LimitedAction.reset, LimitedAction.verify})
# Here every try counts; at the other doors the wrong ones do.
COUNTS_ALL = frozenset(
    {LimitedAction.register, LimitedAction.forgot, LimitedAction.resend, LimitedAction.write}
)
# IPv6 comes in blocks: what holds for a /64 holds for so many of them that share a /48.
BLOCK = 10
# A network stays known for this long after a registration, a login or a new password there.
TRUST_SECONDS = 30 * _DAY

"""Rate limits: the limited actions, and the limits of each (docs/adr/0016-throttling.md)."""

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
    """Whose attempts are counted together."""

    network = "network"  # an IPv4 address, or the /64 of an IPv6 address
    account = "account"  # an account, from one network or within one session
    strangers = "strangers"  # an account, from all networks that it is not known from
    everyone = "everyone"  # all networks, but for those that an account is known from
    address = "address"  # mails to an address, or registrations of it
    invalid = "invalid"  # requests of a network whose input was refused, of all actions together
    changes = "changes"  # changes of one's password or address: each is reported by mail


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many attempts within so many seconds, from the first one on."""

    max_attempts: int
    seconds: int


class Bucket(Window):
    """Attempts that are counted together; `key` gives away neither address nor network."""

    __slots__ = ("counted", "rate_limit", "scope")

    def __init__(self, scope: LimitScope, rate_limit: RateLimit, key: str, owner: str) -> None:
        super().__init__(key, rate_limit.seconds, rate_limit.max_attempts, owner)
        self.scope = scope
        self.rate_limit = rate_limit
        self.counted = 0

    @property
    def left(self) -> int:
        """Return how many attempts are left in the present window."""
        return max(0, self.rate_limit.max_attempts - self.counted)

    def headers(self, action: LimitedAction, *, left: int, seconds: int) -> dict[str, str]:
        """Return what draft-ietf-httpapi-ratelimit-headers has an answer say of a limit."""
        name, rate = f'"{action}-{self.scope}"', self.rate_limit
        return {
            "RateLimit-Policy": f"{name};q={rate.max_attempts};w={rate.seconds}",
            "RateLimit": f"{name};r={left};t={seconds}",
        }


MINUTE, _QUARTER, _HOUR, _DAY = 60, 900, 3_600, 86_400
# A client that goes on failing waits for a quarter of an hour, then an hour, then a day.
_GROWING = (RateLimit(10, _QUARTER), RateLimit(20, _HOUR), RateLimit(40, _DAY))
_A_FEW_MAILS = (RateLimit(3, _HOUR),)
# No limit for all together where wrong attempts of some would keep the right ones of others out.
_MAILS = {LimitScope.network: (RateLimit(20, _HOUR),), LimitScope.address: _A_FEW_MAILS}
# Tokens cannot be guessed: what is limited is the work that wrong ones make.
_TOKENS = {LimitScope.network: (RateLimit(100, _QUARTER),)}
_LOGINS = {
    LimitScope.network: (RateLimit(100, _QUARTER),),
    LimitScope.account: _GROWING,
    LimitScope.strangers: (RateLimit(10, _QUARTER), RateLimit(100, _DAY)),
    LimitScope.everyone: (RateLimit(600, MINUTE),),
}
# Far more than forms with mistakes make, or a client that has to be repaired.
_INVALID = {LimitScope.invalid: (RateLimit(300, _QUARTER),)}
_LIMITS_BY_ACTION: Mapping[LimitedAction, Mapping[LimitScope, tuple[RateLimit, ...]]] = {
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
LIMITS: Mapping[LimitedAction, Mapping[LimitScope, tuple[RateLimit, ...]]] = {
    action: limits if action is LimitedAction.write else {**limits, **_INVALID}
    for action, limits in _LIMITS_BY_ACTION.items()
}
# A right token is never refused: looking it up is cheap. Limited is who goes on with wrong ones.
COUNTED_AFTER_FAILURE = frozenset(
    {LimitedAction.refresh, LimitedAction.reset, LimitedAction.verify}
)
# Of these every attempt counts; of the other actions the wrong ones do.
COUNTS_ALL = frozenset(
    {LimitedAction.register, LimitedAction.forgot, LimitedAction.resend, LimitedAction.write}
)
# IPv6 comes in blocks: what holds for a /64 holds for so many of them that share a /48.
BLOCK = 10
# A network stays known for this long after a registration, a login or a new password there.
TRUST_SECONDS = 30 * _DAY

"""How often anybody may try: the doors, and the limits of each (docs/adr/0016-throttling.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Door(StrEnum):
    """What is tried: `password` is one's own, asked for again by an operation of a login; `repeat`
    a registration that was answered before, which holds the password of the account."""

    login = "login"
    password = "password"  # noqa: S105 no secret
    refresh = "refresh"
    reset = "reset"
    verify = "verify"
    register = "register"
    forgot = "forgot"
    resend = "resend"
    repeat = "repeat"


class Whom(StrEnum):
    """Whose tries are counted together."""

    network = "network"  # an IPv4 address, or the /64 of an IPv6 address
    account = "account"  # an account, from one network or within one session
    strangers = "strangers"  # an account, from all networks that it is not known from
    everyone = "everyone"  # the door, but for networks that an account is known from
    address = "address"  # mails to an address, or registrations of it
    changes = "changes"  # changes of one's password or address: each is told by mail


@dataclass(frozen=True, slots=True)
class Quota:
    """So many tries within so many seconds, from the first one on."""

    tries: int
    seconds: int


_MINUTE, _QUARTER, _HOUR, _DAY = 60, 900, 3_600, 86_400
# Whoever goes on failing waits for a quarter of an hour, then an hour, then a day.
_GROWING = (Quota(10, _QUARTER), Quota(20, _HOUR), Quota(40, _DAY))
_A_FEW_MAILS = (Quota(3, _HOUR),)
# No limit for all together where the wrong tries of some would keep the right ones of others out.
_MAILS = {Whom.network: (Quota(20, _HOUR),), Whom.address: _A_FEW_MAILS}
# Tokens cannot be guessed: what is limited is the work that wrong ones make.
_TOKENS = {Whom.network: (Quota(100, _QUARTER),)}
_LOGINS = {
    Whom.network: (Quota(100, _QUARTER),),
    Whom.account: _GROWING,
    Whom.strangers: (Quota(10, _QUARTER), Quota(100, _DAY)),
    Whom.everyone: (Quota(600, _MINUTE),),
}
RULES: Mapping[Door, Mapping[Whom, tuple[Quota, ...]]] = {
    Door.login: _LOGINS,
    Door.repeat: _LOGINS,
    Door.password: {
        Whom.network: (Quota(100, _QUARTER),),
        Whom.account: _GROWING,
        Whom.changes: (Quota(5, _HOUR), Quota(10, _DAY)),
        Whom.address: _A_FEW_MAILS,
    },
    Door.refresh: _TOKENS,
    Door.reset: _TOKENS,
    Door.verify: _TOKENS,
    Door.register: {
        Whom.network: (Quota(60, _HOUR), Quota(300, _DAY)),
        Whom.address: _A_FEW_MAILS,
        Whom.everyone: (Quota(5_000, _HOUR),),
    },
    Door.forgot: _MAILS,
    Door.resend: _MAILS,
}
# A right token is never refused: looking it up is cheap. Limited is who goes on with wrong ones.
AFTERWARDS = frozenset({Door.refresh, Door.reset, Door.verify})
# Here every try counts; at the other doors the wrong ones do.
COUNTS_ALL = frozenset({Door.register, Door.forgot, Door.resend})
# IPv6 comes in blocks: what holds for a /64 holds for so many of them that share a /48.
BLOCK = 10
# A network stays known for this long after somebody registered, logged in or set a password there.
TRUST_SECONDS = 30 * _DAY

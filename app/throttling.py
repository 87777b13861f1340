"""How often anybody may try: one gate for all doors that take passwords, tokens or addresses.

Each door has limits per network, per account and in all (`app/quotas.py`).
A try is counted before anything is verified, and given back when it was right: of any number of
parallel tries no more than the limit are let through. Strangers who fail on an account use up
what strangers have; networks that the account is known from have a limit of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.config import Settings
from app.core.counters import Counters
from app.core.exceptions import (
    AppError,
    IdempotencyKeyReused,
    InternalError,
    Invalid,
    InvalidCredentials,
    InvalidOneTimeToken,
    InvalidRefreshToken,
    StillUnderWay,
    TooManyRequests,
    Unavailable,
    WrongCurrentPassword,
)
from app.core.keys import SecretKeys
from app.core.networks import block_of, network_of
from app.quotas import AFTERWARDS, BLOCK, COUNTS_ALL, RULES, TRUST_SECONDS, Door, Quota, Whom

WRONG = (
    *(InvalidCredentials, InvalidRefreshToken, InvalidOneTimeToken, WrongCurrentPassword),
    IdempotencyKeyReused,
)
_UNDECIDED = (Invalid, StillUnderWay, TooManyRequests, InternalError, Unavailable)
_CLAIM_SECONDS = 15  # longer than a request takes: whoever died at it is in the way
_SHOWN = (Whom.network, Whom.account)


@dataclass(slots=True)
class _Bucket:
    """Tries that are counted together; `key` gives away neither address nor network."""

    whom: Whom
    quota: Quota
    key: str
    count: int = 0


class Gate:
    """Counts tries. Without counters it lets everybody through."""

    def __init__(self, counters: Counters | None, keys: SecretKeys) -> None:
        self.counters = counters
        self._keys = keys

    def attempt(self, door: Door, *, ip: str) -> Attempt:
        """A try at a door; nothing is counted yet."""
        return Attempt(self, door, network_of(ip))

    async def close(self) -> None:
        if self.counters is not None:
            await self.counters.close()

    def key(self, *parts: object) -> str:
        """A name for the store that only holders of the secret can derive."""
        text = "\0".join(map(str, parts)).encode("utf-8", "backslashreplace").decode()
        return self._keys.mac("throttling", text)[:32]


class Attempt:
    """One try at a door: limits are asked one after the other, then it is settled.

    All that refuses raises TooManyRequests, with the longest wait.
    """

    def __init__(self, gate: Gate, door: Door, network: str) -> None:
        self.door = door
        self.user_id: int | None = None  # whose account it is about, for the audit trail
        self.refused_by: tuple[Whom, Quota] | None = None
        self.is_first_refusal = False  # of this limit, in its present window
        self._gate = gate
        self._counters = gate.counters
        self._rules = RULES[door] if gate.counters else {}
        self._network = network
        self._taken: list[_Bucket] = []  # counts if it was wrong
        self._spent: list[_Bucket] = []  # counts whatever came of it, if it was tried at all
        self._claimed: dict[str, int] = {}
        self._headers: dict[str, str] = {}

    async def enter(self) -> None:
        """Before anything is verified: count it for the network and, where no account is asked
        about, for all."""
        if self.door not in AFTERWARDS:
            await self._enter()

    async def _enter(self) -> None:
        wanted = self._buckets(Whom.network, self._network)
        if block := block_of(self._network):
            wanted += self._buckets(Whom.network, block, times=BLOCK)
        if Whom.account not in self._rules:
            wanted += self._buckets(Whom.everyone)
        await self._take(wanted)

    async def on_account(
        self,
        account: str,
        *,
        known_ips: Collection[str] = (),
        session_id: int | None = None,
        user_id: int | None = None,
    ) -> None:
        """Count it for an account, by its `email_key`; call it before anything is verified.

        `known_ips` are addresses the account was logged in at. Whoever is logged in
        (`session_id`) is no stranger wherever they are.
        """
        self.user_id = user_id
        if session_id is not None:
            await self._take(self._buckets(Whom.account, account, "session", session_id))
            return
        wanted = self._buckets(Whom.account, account, self._network)
        known = self._network in {network_of(ip) for ip in known_ips}
        # Asked about nobody too: it takes as long.
        if not known and not await self._is_trusted(user_id or 0):
            wanted += self._buckets(Whom.strangers, account) + self._buckets(Whom.everyone)
        await self._take(wanted)

    async def move_to(self, door: Door) -> None:
        """It turns out to be a try at another door: count it there instead."""
        await self._add(self._taken, -1)
        self.door, self._taken = door, []
        self._rules = RULES[door] if self._counters else {}
        await self.enter()

    async def failed(self, error: BaseException) -> None:
        """It ended with an error. Raises TooManyRequests for one wrong token too many."""
        if self.door in AFTERWARDS and isinstance(error, WRONG):
            await self._enter()

    async def spend(self, whom: Whom, of: object) -> None:
        """Count it for something, right or wrong."""
        await self._take(self._buckets(whom, of), self._spent)

    async def claim(self, what: str) -> bool:
        """Whether nobody else is at something right now; until this try is settled it is theirs."""
        if self._counters is None:
            return True
        wanted = {self._gate.key("claim", what): _CLAIM_SECONDS}
        if await self._counters.add(wanted) == [1]:
            self._claimed = wanted
            return True
        await self._counters.add(wanted, -1)
        return False

    async def may_mail(self, address: str) -> bool:
        """Count a mail to an address, by its `email_key`; False when it had enough of them.

        Then send nothing and answer as if it were sent, whoever has that address.
        """
        buckets = self._buckets(Whom.address, address, shared=True)
        self._spent += buckets
        await self._add(buckets)
        full = [bucket for bucket in buckets if bucket.count > bucket.quota.tries]
        for bucket in full:
            await self._note(bucket, bucket.quota.seconds)
        return not full

    async def trust(self, user_id: int) -> None:
        """Somebody has just proved that the account is theirs: this network is known from now."""
        if self._counters is not None:
            key = self._gate.key("trusted", user_id, self._network)
            await self._counters.add({key: TRUST_SECONDS})

    async def settle(self, error: BaseException | None) -> None:
        """Give back what does not count; `error` is what it ended with."""
        was_tried = _was_tried(error)
        if not (was_tried if self.door in COUNTS_ALL else isinstance(error, WRONG)):
            await self._add(self._taken, -1)
        if not was_tried:
            await self._add(self._spent, -1)
        if self._counters is not None:
            await self._counters.add(self._claimed, -1)
        await self._show_what_is_left()

    @property
    def headers(self) -> Mapping[str, str]:
        """The limit that is closest, as draft-ietf-httpapi-ratelimit-headers has it."""
        return self._headers

    async def _take(self, wanted: list[_Bucket], kept: list[_Bucket] | None = None) -> None:
        if not wanted:
            return
        # Looked at first: where the limit was reached, those who are refused change nothing.
        counts = await self._count([bucket.key for bucket in wanted])
        full = [
            each for each, count in zip(wanted, counts, strict=True) if count >= each.quota.tries
        ]
        if not full:
            (self._taken if kept is None else kept).extend(wanted)
            await self._add(wanted)
            full = [bucket for bucket in wanted if bucket.count > bucket.quota.tries]
        if full:
            raise await self._refusal(full)

    async def _refusal(self, full: Iterable[_Bucket]) -> TooManyRequests:
        assert self._counters is not None
        waits = [(await self._counters.seconds_left(bucket.key), bucket) for bucket in full]
        seconds, bucket = max(waits, key=lambda wait: wait[0])
        await self._note(bucket, seconds)
        self._show(bucket, left=0, seconds=seconds)
        return TooManyRequests(retry_after=seconds)

    async def _note(self, bucket: _Bucket, seconds: int) -> None:
        assert self._counters is not None
        self.refused_by = (bucket.whom, bucket.quota)
        self.is_first_refusal = await self._counters.add({f"{bucket.key}:noted": seconds}) == [1]

    async def _is_trusted(self, user_id: int) -> bool:
        return any(await self._count([self._gate.key("trusted", user_id, self._network)]))

    async def _count(self, keys: Sequence[str]) -> list[int]:
        return await self._counters.count(keys) if self._counters else []

    async def _add(self, buckets: Sequence[_Bucket], amount: int = 1) -> None:
        if self._counters is not None:
            windows = {bucket.key: bucket.quota.seconds for bucket in buckets}
            counts = await self._counters.add(windows, amount)
            for bucket, count in zip(buckets, counts, strict=True):
                bucket.count = count

    def _buckets(
        self, whom: Whom, *of: object, shared: bool = False, times: int = 1
    ) -> list[_Bucket]:
        """One for each quota, the shortest first; `shared` by all doors, so many `times` as
        large."""
        door = "" if shared else self.door
        quotas = [Quota(each.tries * times, each.seconds) for each in self._rules.get(whom, ())]
        return [
            _Bucket(whom, quota, self._gate.key(door, whom, quota.seconds, *of)) for quota in quotas
        ]

    async def _show_what_is_left(self) -> None:
        shown = [bucket for bucket in self._taken if bucket.whom in _SHOWN]
        if self._headers or not shown:
            return
        assert self._counters is not None
        closest = min(shown, key=_left)
        seconds = await self._counters.seconds_left(closest.key)
        self._show(closest, left=_left(closest), seconds=seconds)

    def _show(self, bucket: _Bucket, *, left: int, seconds: int) -> None:
        name, quota = f'"{self.door}-{bucket.whom}"', bucket.quota
        self._headers = {
            "RateLimit-Policy": f"{name};q={quota.tries};w={quota.seconds}",
            "RateLimit": f"{name};r={left};t={seconds}",
        }


def _was_tried(error: BaseException | None) -> bool:
    """Whether a try came to a decision. Invalid input did not, nor what failed on our side: whoever
    tries again through an outage has used nothing up."""
    if error is None:
        return True
    return isinstance(error, AppError) and not isinstance(error, _UNDECIDED)


def _left(bucket: _Bucket) -> int:
    return max(0, bucket.quota.tries - bucket.count)


def gate_of(settings: Settings) -> Gate:
    """The gate of the settings. Nothing is connected to before the first try."""
    keys = settings.keys
    if not settings.rate_limit_enabled:
        return Gate(None, keys)
    prefix = f"cimiento-limits-{keys.newest_id}"
    return Gate(Counters(prefix=prefix, redis_url=settings.redis_url), keys)

"""Limits attempts at what takes passwords, tokens or addresses.

Each action has limits per network, per account and in all (`app/rate_limits/rules.py`).
An attempt is counted before anything is verified, and given back when it was right: of any number
of parallel attempts no more than the limit are let through. Strangers who fail on an account use up
what strangers have; networks that the account is known from have a limit of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from app.config import Settings
from app.core.exceptions import TooManyRequests
from app.core.groups import block_of, mailbox_of, network_of
from app.core.keyring import SecretKeys
from app.rate_limits.counters import Counters
from app.rate_limits.local_counters import Window
from app.rate_limits.outcomes import WRONG, is_invalid, was_tried
from app.rate_limits.rules import (
    BLOCK,
    COUNTED_AFTER_FAILURE,
    COUNTS_ALL,
    LIMITS,
    MINUTE,
    TRUST_SECONDS,
    Bucket,
    LimitedAction,
    LimitScope,
    RateLimit,
)

_CLAIM_SECONDS = 15  # longer than a request takes: one that died leaves its claim behind
_IN_HEADERS = (LimitScope.network, LimitScope.account)


class RateLimiter:
    """Counts attempts. Without counters it lets everybody through."""

    def __init__(
        self, counters: Counters | None, keys: SecretKeys, *, posts_per_minute: int = 0
    ) -> None:
        self.counters = counters
        self._keys = keys
        self._writes = {LimitScope.account: (RateLimit(posts_per_minute, MINUTE),)}
        self.limits_writing = counters is not None and posts_per_minute > 0
        # Called for each new post: the window is built once for an account.
        self.writes_of = lru_cache(4_096)(self._writes_of)

    def attempt(self, action: LimitedAction, *, ip: str) -> RateLimitAttempt:
        """Return an attempt at an action; nothing is counted yet."""
        return RateLimitAttempt(self, action, network_of(ip))

    def limits(self, action: LimitedAction) -> Mapping[LimitScope, tuple[RateLimit, ...]]:
        """Return the limits of an action."""
        if self.counters is None:
            return {}
        if action is LimitedAction.write:
            return self._writes if self.limits_writing else {}
        return LIMITS[action]

    async def close(self) -> None:
        if self.counters is not None:
            await self.counters.close()

    def key(self, *parts: object) -> str:
        """Return a name for the store that only holders of the secret can derive."""
        text = "\0".join(map(str, parts)).encode("utf-8", "backslashreplace").decode()
        return self._keys.mac("throttling", text)[:32]

    def bucket(
        self, action: str, scope: LimitScope, limit: RateLimit, owner: str, *subject: object
    ) -> Bucket:
        """Return what attempts of this kind are counted in."""
        return Bucket(scope, limit, self.key(action, scope, limit.seconds, *subject), owner)

    def _writes_of(self, user_id: int) -> Window:
        (limit,) = self._writes[LimitScope.account]
        return self.bucket(
            LimitedAction.write, LimitScope.account, limit, f"user {user_id}", user_id
        )


class RateLimitAttempt:
    """One attempt at an action: limits are asked one after the other, then it is settled.

    All that refuses raises TooManyRequests, with the longest wait.
    """

    def __init__(self, limiter: RateLimiter, action: LimitedAction, network: str) -> None:
        self.action = action
        self.user_id: int | None = None  # whose account it is about, for the audit trail
        self.refused_by: tuple[LimitScope, RateLimit] | None = None
        self.is_first_refusal = False  # of this limit, in its present window
        self._limiter = limiter
        self._counters = limiter.counters
        self._limits = limiter.limits(action)
        self._network = network
        self._block = block_of(network)
        self._taken: list[Bucket] = []  # counts if it was wrong
        self._counted_if_tried: list[Bucket] = []  # counts right or wrong, if it was tried at all
        self._claimed: list[Window] = []
        self._headers: dict[str, str] = {}

    async def enter(self) -> None:
        """Count it for the network and, where no account is asked about, for all; call it before
        anything is verified."""
        if self.action not in COUNTED_AFTER_FAILURE:
            await self._enter()

    async def _enter(self) -> None:
        wanted = self._of_network(LimitScope.network)
        if LimitScope.account not in self._limits:
            wanted += self._buckets(LimitScope.everyone)
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

        The empty key stands for all that can be no account's.
        `known_ips` are addresses the account was logged in at. A caller who is logged in
        (`session_id`) is no stranger at any address.
        """
        self.user_id = user_id
        if session_id is not None:
            await self._take(self._buckets(LimitScope.account, account, "session", session_id))
            return
        wanted = self._buckets(LimitScope.account, account, self._network)
        known = self._network in {network_of(ip) for ip in known_ips}
        # Asked for an unknown account too: it takes as long.
        if not known and not await self._is_trusted(user_id or 0):
            wanted += self._buckets(LimitScope.strangers, account) if account else []
            wanted += self._buckets(LimitScope.everyone)
        await self._take(wanted)

    def move_to(self, action: LimitedAction) -> None:
        """Make it an attempt at another action than the one requested; not entered yet."""
        self.action, self._limits = action, self._limiter.limits(action)

    async def failed(self, error: BaseException) -> None:
        """Count an error that it ended with. Raise TooManyRequests for one wrong token, or one
        request with invalid input, too many: right and valid ones are let through all the same."""
        if self.action in COUNTED_AFTER_FAILURE and isinstance(error, WRONG):
            await self._enter()
        elif is_invalid(error):
            await self._take(self._of_network(LimitScope.invalid, shared=True), [])

    async def count(self, scope: LimitScope, subject: object) -> None:
        """Count it for a subject of this scope, right or wrong."""
        await self._take(self._buckets(scope, subject), self._counted_if_tried)

    async def register(self, address: str) -> None:
        """Count it for an address, by its `email_key`, which is mailed a welcome."""
        await self.count(LimitScope.address, mailbox_of(address))

    async def write(self, user_id: int) -> None:
        """Count it for an account that writes posts."""
        self.user_id = user_id
        await self._take(self._buckets(LimitScope.account, user_id))

    async def claim(self, what: str) -> bool:
        """Claim something until this attempt is settled; return whether it was free."""
        if self._counters is None:
            return True
        # With a limit of 1, a claim is never evicted.
        wanted = [Window(self._limiter.key("claim", what), _CLAIM_SECONDS, 1, self._owner)]
        if await self._counters.add(wanted) == [1]:
            self._claimed = wanted
            return True
        await self._counters.add(wanted, -1)
        return False

    async def may_mail(self, address: str, *, by_itself: bool = False) -> bool:
        """Count a mail to an address, by its `email_key`; False when its mailbox had enough of
        them. Send nothing then, and answer as if it were sent, for an unknown address too.

        `by_itself`: not together with sub-addresses, which strangers may use up.
        """
        subject = ("itself", address) if by_itself else (mailbox_of(address),)
        buckets = self._buckets(LimitScope.address, *subject, shared=True)
        self._counted_if_tried += buckets
        await self._add(buckets)
        full = [bucket for bucket in buckets if bucket.counted > bucket.limit]
        for bucket in full:
            await self._note(bucket, bucket.seconds)
        return not full

    async def trust(self, user_id: int) -> None:
        """Remember this network as known to the account: its owner has just been verified."""
        if self._counters is not None:
            key = self._limiter.key("trusted", user_id, self._network)
            await self._counters.add([Window(key, TRUST_SECONDS, owner=self._owner)])

    async def settle(self, error: BaseException | None) -> None:
        """Give back what does not count; `error` is what it ended with."""
        tried = was_tried(error)
        if not (tried if self.action in COUNTS_ALL else isinstance(error, WRONG)):
            await self._add(self._taken, -1)
        if not tried:
            await self._add(self._counted_if_tried, -1)
        if self._counters is not None:
            await self._counters.add(self._claimed, -1)
        await self._show_what_is_left()

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the limit that is closest, as draft-ietf-httpapi-ratelimit-headers has it."""
        return self._headers

    async def _take(self, wanted: list[Bucket], kept: list[Bucket] | None = None) -> None:
        if not wanted:
            return
        # Looked at first: where the limit was reached, those who are refused change nothing.
        counts = await self._counts_of([bucket.key for bucket in wanted])
        full = [each for each, count in zip(wanted, counts, strict=True) if count >= each.limit]
        if not full:
            (self._taken if kept is None else kept).extend(wanted)
            await self._add(wanted)
            full = [bucket for bucket in wanted if bucket.counted > bucket.limit]
        if full:
            raise await self._refusal(full)

    async def _refusal(self, full: Iterable[Bucket]) -> TooManyRequests:
        assert self._counters is not None
        waits = [(await self._counters.seconds_left(bucket), bucket) for bucket in full]
        seconds, bucket = max(waits, key=lambda wait: wait[0])
        await self._note(bucket, seconds)
        self._headers = bucket.headers(self.action, left=0, seconds=seconds)
        return TooManyRequests(retry_after=seconds)

    async def _note(self, bucket: Bucket, seconds: int) -> None:
        assert self._counters is not None
        self.refused_by = (bucket.scope, bucket.rate_limit)
        # It is kept for as long as the limit is: what is written down once is not forgotten.
        noted = Window(f"{bucket.key}:noted", seconds, 1, self._owner)
        self.is_first_refusal = await self._counters.add([noted]) == [1]

    async def _is_trusted(self, user_id: int) -> bool:
        return any(await self._counts_of([self._limiter.key("trusted", user_id, self._network)]))

    async def _counts_of(self, keys: Sequence[str]) -> list[int]:
        return await self._counters.count(keys) if self._counters else []

    async def _add(self, buckets: Sequence[Bucket], amount: int = 1) -> None:
        if self._counters is not None:
            counts = await self._counters.add(buckets, amount)
            for bucket, count in zip(buckets, counts, strict=True):
                bucket.counted = count

    @property
    def _owner(self) -> str:
        """Return the network whose share of the memory the counters take; a /48 has one share."""
        return self._block or self._network

    def _of_network(self, scope: LimitScope, *, shared: bool = False) -> list[Bucket]:
        wanted = self._buckets(scope, self._network, shared=shared)
        if self._block:
            wanted += self._buckets(scope, self._block, shared=shared, times=BLOCK)
        return wanted

    def _buckets(
        self, scope: LimitScope, *subject: object, shared: bool = False, times: int = 1
    ) -> list[Bucket]:
        """Return one for each limit, the shortest first; `shared` by all actions, so many `times`
        as large."""
        action = "" if shared else self.action
        declared = self._limits.get(scope, ())
        limits = [RateLimit(each.max_attempts * times, each.seconds) for each in declared]
        # What counts for everyone is lost with nobody's share.
        owner = scope if scope is LimitScope.everyone else self._owner
        return [self._limiter.bucket(action, scope, limit, owner, *subject) for limit in limits]

    async def _show_what_is_left(self) -> None:
        shown = [bucket for bucket in self._taken if bucket.scope in _IN_HEADERS]
        if self._headers or not shown:
            return
        assert self._counters is not None
        closest = min(shown, key=lambda bucket: bucket.left)
        # No window has begun where nothing is counted.
        seconds = await self._counters.seconds_left(closest) if closest.counted else closest.seconds
        self._headers = closest.headers(self.action, left=closest.left, seconds=seconds)


def rate_limiter_of(settings: Settings) -> RateLimiter:
    """Return the rate limiter of the settings. Nothing is connected to before the first attempt."""
    keys = settings.keys
    if not settings.rate_limit_enabled:
        return RateLimiter(None, keys)
    prefix = f"cimiento-limits-{keys.newest_id}"
    counters = Counters(prefix=prefix, redis_url=settings.redis_url)
    return RateLimiter(counters, keys, posts_per_minute=settings.posts_per_minute)

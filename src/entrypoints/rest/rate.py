"""How many requests a minute each key, or each address without one, may send to this process."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_network

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Scope

from .admission import address_of
from .problems import Problem

# the part of an IPv6 address that one customer is given: the rest is his to vary
_IPV6_PREFIX = 64


class Rate:
    """Counts requests in a moving window of a minute; ``per_minute`` 0 counts nothing."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def exceeded(self, caller: tuple[str, str]) -> Problem | None:
        """Count one request of a caller; the problem where it is one too many, with ``Retry-After`` in seconds."""
        if self._item is None or self._limiter.hit(self._item, *caller):
            return None
        reopens, _ = self._limiter.get_window_stats(self._item, *caller)
        seconds = max(1, math.ceil(reopens - time.time()))
        return Problem.about(
            "rate",
            "requests",
            expected=f"at most {self._item.amount} a minute",
            got="more",
            do=f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )


def peer_of(scope: Scope) -> str:
    """Who a keyless request is counted for: an IPv4 address, an IPv6 network, or ``local`` for what has neither."""
    address = address_of(scope["client"][0]) if scope.get("client") else None
    if isinstance(address, IPv6Address):
        return str(ip_network((address.packed, _IPV6_PREFIX), strict=False))
    return str(address or "local")

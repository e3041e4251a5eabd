"""Checks of a request's head: where it came in, its site, the form of its body, and the caller's rate."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import Scope

from ...domain.volume_names import PACKED
from .problems import Problem

_OWN_NAMES = r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
_OWN_HOST = re.compile(_OWN_NAMES, re.IGNORECASE)
_OWN_ORIGIN = re.compile(f"https?://{_OWN_NAMES}", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,20}")
_IPV6_PREFIX = 64  # the part of an IPv6 address that one customer is given; the rest varies freely


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, IPv4 where IPv6 only wraps it; None for a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def bad_bind(scope: Scope) -> Problem | None:
    """A connection that came in by neither a loopback address nor a unix socket, or for another machine."""
    host, port = scope.get("server") or ("", None)
    local = address_of(host)
    unix = port is None and local is None and "/" in host
    # behind a proxy on this machine the server gives the caller's own address
    peer = address_of(scope["client"][0]) if scope.get("client") else None
    if (unix or (local is not None and local.is_loopback)) and (peer is None or peer.is_loopback):
        return None
    expected, got = "one from this machine, as the service has no keys", "one over the network"
    do = "set VOXPORT_API_KEYS for the service, or reach it over loopback"
    return Problem.about("forbidden", "connection", expected=expected, got=got, do=do)


def bad_origin(headers: Headers, public_host: str | None = None, others: Collection[str] = ()) -> Problem | None:
    """A request for another host name, or from a page of another site: what a browser can be made to send."""
    public = (f"http://{public_host}", f"https://{public_host}")
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not (hosts[0].lower() == public_host or _OWN_HOST.fullmatch(hosts[0])):
        what, got = "Host", "another, several or none"
    elif not all(o.lower() in public or o in others or _OWN_ORIGIN.fullmatch(o) for o in headers.getlist("origin")):
        what, got = "Origin", "another site"
    else:
        return None
    do = "use http://127.0.0.1, or set VOXPORT_API_KEYS for the service"
    return Problem.about("forbidden", what, expected="localhost, 127.0.0.1 or [::1]", got=got, do=do)


def bad_body(scope: Scope, headers: Headers) -> Problem | None:
    """A request whose path or body length is ambiguous, or whose body must not or cannot be decoded."""
    lengths = headers.getlist("content-length")
    if not scope["path"].startswith("/"):
        return Problem.about("malformed", "path", expected="one that begins with /", got="another", do="send the path")
    if len(lengths) > 1 or (lengths and "transfer-encoding" in headers) or not all(map(_LENGTH.fullmatch, lengths)):
        expected, do = "one number of bytes, or Transfer-Encoding instead", "state the body's length once"
        return Problem.about("malformed", "Content-Length", expected=expected, got="something else", do=do)
    if any(coding.strip().lower() != "identity" for coding in headers.getlist("content-encoding")):
        do = f"send a {PACKED} file as it is"
        return Problem.about("media-type", "Content-Encoding", expected="none", got="one", do=do)
    if any("pickle" in media_type.lower() for media_type in headers.getlist("content-type")):
        expected, do = "multipart/form-data or application/json", "send the volume as a file"
        return Problem.about("media-type", "Content-Type", expected=expected, got="a pickle", do=do)
    return None


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
        expected, do = f"at most {self._item.amount} a minute", f"try again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        return Problem.about("rate", "requests", expected=expected, got="more", do=do, headers=headers)


def peer_of(scope: Scope) -> str:
    """Who a keyless request is counted for: an IPv4 address, an IPv6 network, or ``local`` for what has neither."""
    address = address_of(scope["client"][0]) if scope.get("client") else None
    if isinstance(address, IPv6Address):
        return str(ip_network((address.packed, _IPV6_PREFIX), strict=False))
    return str(address or "local")

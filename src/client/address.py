"""Checks of addresses and keys."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ..domain.errors import UsageError
from .errors import one_line

_EXAMPLE = "http://127.0.0.1:3000"


def checked_url(url: str) -> str:
    """Return a server's address without a trailing slash; a path is kept, for servers behind a proxy.

    Raises:
        UsageError: not http or https, no host, or a password, query or fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.hostname is not None and parts.port != 0
    except ValueError:
        raise _refused("one that cannot be read") from None
    if parts.username is not None or parts.password is not None:
        # not repeated: error messages are logged
        raise UsageError("server", expected="a URL", got="one with a name or password", do="give the key apart from it")
    if parts.scheme not in ("http", "https") or not usable or not url.isprintable() or " " in url:
        raise _refused(one_line(url) or "nothing")
    if parts.query or parts.fragment:
        raise _refused("one with a query or a fragment")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine's, by name or number."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked_key(key: str | None) -> str | None:
    """Return the key without surrounding space, or None if empty.

    Raises:
        UsageError: characters that a header cannot contain; the message does not repeat them.
    """
    key = (key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            "API key",
            expected="printable ASCII without spaces",
            got="other characters",
            do="copy it again; VOXPORT_API_KEY holds the key alone",
        )
    return key or None


def _refused(got: str) -> UsageError:
    return UsageError("server", expected=f"a URL such as {_EXAMPLE}", got=got, do="correct it")

"""Which addresses a client takes, and what it may say on the way to them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ..domain.errors import UsageError
from .errors import one_line

_EXAMPLE = "http://127.0.0.1:3000"


def checked_url(url: str) -> str:
    """The address of a server without a closing slash; a path in it is kept, for servers behind a proxy.

    Raises:
        UsageError: it is not http or https, names no host, or carries a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.hostname is not None and parts.port != 0
    except ValueError:
        raise _refused("one that cannot be read") from None
    if parts.username is not None or parts.password is not None:
        # neither is repeated: error messages end up in logs
        raise UsageError("server", expected="a URL", got="one with a name or password", do="give the key apart from it")
    if parts.scheme not in ("http", "https") or not usable or not url.isprintable() or " " in url:
        raise _refused(one_line(url) or "nothing")
    if parts.query or parts.fragment:
        raise _refused("one with a query or a fragment")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own, by its name or number."""
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
    """The key without the space around it, or None where there is none.

    Raises:
        UsageError: characters that cannot stand in a header; they are not repeated.
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

"""Addresses of servers: on this machine, and behind a proxy, which may add a path prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..domain.errors import UsageError

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HEADER = b"x-forwarded-prefix"


@dataclass(frozen=True)
class PublicAddress:
    """The public address of a server.

    Args:
        url: e.g. ``https://lab.example/voxport``; None for the server's own address.
        trusts_header: whether ``X-Forwarded-Prefix`` of a request replaces the path of ``url``.

    Raises:
        UsageError: ``url`` is no HTTP URL with a plain path.
    """

    url: str | None = None
    trusts_header: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url or "http://none")
        path = parts.path.rstrip("/")
        plain = parts.scheme in ("http", "https") and parts.netloc and not (parts.query or parts.fragment)
        if not plain or (path and not _PREFIX.fullmatch(path)):
            do = "correct the setting public_url"
            raise UsageError("public_url", expected="https://HOST or https://HOST/PATH", got=str(self.url), do=do)

    @property
    def host(self) -> str | None:
        """Host and port of the public address, lower case."""
        return urlsplit(self.url).netloc.lower() if self.url else None

    def applied_to(self, scope: dict[str, Any]) -> dict[str, Any]:
        """The ASGI scope with the prefix in ``root_path`` and ``path``, whether or not the proxy strips it."""
        prefix = self._prefix(scope)
        if not prefix:
            return scope
        path = str(scope["path"])
        if path != prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        return {**scope, "root_path": prefix, "path": path}

    def _prefix(self, scope: dict[str, Any]) -> str:
        if self.trusts_header:
            given = [str(value, "latin-1").rstrip("/") for name, value in scope["headers"] if name == _HEADER]
            if len(given) == 1 and _PREFIX.fullmatch(given[0]):
                return given[0]
        return urlsplit(self.url).path.rstrip("/") if self.url else ""


def url_of(host: str, port: int) -> str:
    """URL of a server; an IPv6 address is put in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def prefix_of(scope: Any) -> str:
    """The path prefix of a request's public address."""
    return str(scope.get("root_path", ""))

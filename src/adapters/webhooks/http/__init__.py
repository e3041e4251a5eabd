"""Signed messages over HTTP, as Standard Webhooks describes them, to origins that the settings list."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from ....domain.errors import UsageError
from ....ports.webhooks import WebhookSender

_SECONDS = 10.0
_PORTS = {"https": 443, "http": 80}


class HttpWebhooks(WebhookSender):
    """`WebhookSender` over HTTP. It follows no redirect, asks no proxy, and does not read answers.

    The host's name is resolved once for a message, which then goes to just the address that was checked.

    Args:
        origins: such as ``https://lab.example`` or ``http://10.0.0.7:8080``; others are refused.
        secret: in base64; receivers check the signature with it.
        allows_private: whether loopback, private and other addresses that are not global may be called.
    """

    def __init__(self, origins: Sequence[str], secret: str, *, allows_private: bool = False) -> None:
        self._origins = frozenset(_origin(urlsplit(origin)) for origin in origins)
        self._secret, self._allows_private = secret, allows_private

    def check(self, url: str) -> None:
        parts = _parts(url)
        if parts is None or _origin(parts) not in self._origins:
            expected = f"a URL of {', '.join(sorted(self._origins))}" if self._origins else "no callback"
            do = "ask whoever runs the service to add its origin to VOXPORT_JOBS__CALLBACK_ORIGINS"
            raise UsageError("callback_url", expected=expected, got=url[:200], do=do)

    def send(self, url: str, id: str, body: bytes) -> None:
        import httpx
        from standardwebhooks import Webhook

        self.check(url)
        target = httpx.URL(url)
        address = self._address(target.host, target.port or _PORTS[target.scheme])
        at = datetime.now(UTC)
        headers = {
            "Host": target.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "voxport",
            "webhook-id": id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(self._secret).sign(id, at, body.decode()),
        }
        try:
            with (
                httpx.Client(timeout=_SECONDS, trust_env=False, follow_redirects=False) as client,
                client.stream(
                    "POST",
                    target.copy_with(host=address),
                    content=body,
                    headers=headers,
                    extensions={"sni_hostname": target.host},
                ) as answer,
            ):
                status = answer.status_code
        except httpx.HTTPError as error:
            raise ConnectionError(f"{_origin(urlsplit(url))} cannot be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise ConnectionError(f"{_origin(urlsplit(url))} answered {status}")

    def _address(self, host: str, port: int) -> str:
        """The first address of a host. Raises ConnectionError if it has one that is not allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise ConnectionError(f"{host} has no address") from None
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        if not self._allows_private and not all(map(_is_global, addresses)):
            raise ConnectionError(f"{host} has an address that is not public; see VOXPORT_JOBS__CALLBACK_PRIVATE")
        return addresses[0]


def _is_global(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return parsed.is_global and not parsed.is_multicast and (inner is None or inner.is_global)


def _parts(url: str) -> SplitResult | None:
    """The parts of a plain HTTP URL without a user; None for anything else."""
    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        known = parts.scheme in _PORTS and parts.hostname and parts.username is None and parts.password is None
        _ = parts.port
    except ValueError:
        return None
    return parts if plain and known and not parts.fragment else None


def _origin(parts: SplitResult) -> str:
    port = parts.port or _PORTS.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" if port == _PORTS.get(parts.scheme) else f"{parts.scheme}://{host}:{port}"

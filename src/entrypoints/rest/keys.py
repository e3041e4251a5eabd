"""API keys, stored as SHA-256 digests and compared in constant time."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.datastructures import Headers

from ...domain.errors import UsageError

SHORTEST = 16
_HASHED = "sha256:"


@dataclass(frozen=True)
class KeyHash:
    """The SHA-256 digest (32 bytes) of a key that opens the service."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, key: str) -> KeyHash:
        """The hash of a plain key."""
        return cls(sha256(key.encode()).digest())

    @property
    def principal(self) -> str:
        """The key's short name: the first 12 hexadecimal digits of the digest."""
        return self.digest.hex()[:12]


def parse_keys(entries: Iterable[str]) -> tuple[KeyHash, ...]:
    """Parse the entries of ``VOXPORT_API_KEYS``: keys, or ``sha256:HEX`` of keys. Repeated keys count once.

    Raises:
        UsageError: an entry is invalid; it is named by its position, never quoted.
    """
    hashes = (_parse_key(entry.strip(), position) for position, entry in enumerate(entries, start=1))
    return tuple(dict.fromkeys(hashes))


def _parse_key(entry: str, position: int) -> KeyHash:
    subject, do = f"API key {position}", "make one with: openssl rand -hex 32"
    if entry.startswith(_HASHED):
        digits = entry.removeprefix(_HASHED)
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            expected, got = "64 hexadecimal digits after sha256:", f"{len(digits)} characters"
            raise UsageError(subject, expected=expected, got=got, do="write the key's SHA-256, as sha256sum prints it")
        return KeyHash(bytes.fromhex(digits))
    if len(entry) < SHORTEST:
        raise UsageError(subject, expected=f"at least {SHORTEST} characters", got=str(len(entry)), do=do)
    if not re.fullmatch(r"[!-~]+", entry):
        got = "a space or another character that a header cannot carry"
        raise UsageError(subject, expected="ASCII letters, digits and signs", got=got, do=do)
    return KeyHash.of(entry)


def holder(keys: Iterable[KeyHash], headers: Headers) -> KeyHash | None:
    """The key that a request carries, as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

    None where it carries none, a wrong one, or two that differ.
    """
    presented = _presented(headers)
    if len(presented) != 1:
        return None
    digest = sha256(presented.pop()).digest()
    found = None
    # every key is compared, so that the time taken does not depend on which one matches
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _presented(headers: Headers) -> set[bytes]:
    tokens = list(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            tokens.append(token)
    return {token.strip(" \t").encode("latin-1") for token in tokens}

"""Errors of the client only."""

from __future__ import annotations

from ..domain.errors import VoxportError

_LONGEST = 500


class RemoteError(VoxportError):
    """The server is unreachable or its response is invalid."""

    @classmethod
    def wrong_answer(cls, url: str, *, expected: str, got: str) -> RemoteError:
        """Build the error for a complete but invalid response."""
        return cls(url, expected=expected, got=got, do="check that the address is a voxport server's, of this version")


class UnreachableError(RemoteError):
    """No connection, a broken one, or a proxy without its server. A retry may succeed."""


class LostAnswerError(UnreachableError):
    """The request was sent completely but the response is missing, so its effect is unknown."""


def one_line(text: object) -> str:
    """Return foreign text without control characters, shortened."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."

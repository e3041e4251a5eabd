"""The errors that only a client has, and strangers' words made fit for one line."""

from __future__ import annotations

from ..domain.errors import VoxportError

_LONGEST = 500


class RemoteError(VoxportError):
    """The server cannot be reached, or does not answer as voxport does."""

    @classmethod
    def wrong_answer(cls, url: str, *, expected: str, got: str) -> RemoteError:
        """The error for an answer that came in full and is not what the service promises."""
        return cls(url, expected=expected, got=got, do="check that the address is a voxport server's, of this version")


class UnreachableError(RemoteError):
    """No connection, one that broke, or a proxy whose server is away: the same request may do better later."""


class LostAnswerError(UnreachableError):
    """The request went out whole and its answer did not come: the server may have done what it was asked to."""


def one_line(text: object) -> str:
    """Text from elsewhere without line ends and other control characters, cut at a bearable length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."

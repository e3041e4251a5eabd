"""Errors that a user can cause or fix. Each message is one line: subject, expected, got, what to do."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any


class VoxportError(Exception):
    """Base class of voxport's errors.

    Args:
        subject: the file name, field or option at fault.
        expected: a valid value.
        got: the value found; empty for nothing.
        do: how to fix it.
    """

    def __init__(self, subject: str, *, expected: str, got: str, do: str) -> None:
        got = got or "nothing"
        super().__init__(f"{subject}: expected {expected}, got {got}; {do}")
        self.subject = subject
        self.expected = expected
        self.got = got
        self.do = do

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made again in another process: exceptions are otherwise made of their message alone."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[VoxportError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> VoxportError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UsageError(VoxportError):
    """An invalid option or argument, or a combination that conflicts."""

    @classmethod
    def not_installed(cls, subject: str, package: str, extra: str) -> NotInstalledError:
        """Build the error for a package that is missing; one of voxport's extras installs it."""
        do = f"pip install 'voxport[{extra}]'"
        return NotInstalledError(subject, expected=package, got="none installed", do=do)


class NotInstalledError(UsageError):
    """A package is missing."""


class InputError(VoxportError):
    """A volume is unreadable or does not fit the model."""


class ModelError(VoxportError):
    """A model file, card or certificate is invalid."""


class UnknownModelError(ModelError):
    """The repository has no model of this name."""


class UnknownJobError(VoxportError):
    """The caller has no job with this id."""


class BusyError(VoxportError):
    """The service is at capacity. Retry after ``retry_after_seconds``."""

    def __init__(self, subject: str, *, expected: str, got: str, retry_after_seconds: float) -> None:
        super().__init__(subject, expected=expected, got=got, do=f"try again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class LimitError(VoxportError):
    """The request exceeds a configured limit, such as memory or voxels."""


class TimeLimitError(LimitError):
    """The run exceeds its time limit."""


class NoSpaceError(LimitError):
    """The disk has too little free space at present."""


class OutputError(VoxportError):
    """A result cannot be written."""

    @classmethod
    def cannot_write(cls, subject: str, reason: OSError | str) -> OutputError:
        """Build the error for a destination that cannot be written."""
        got = reason if isinstance(reason, str) else (reason.strerror or "an error").lower()
        is_full = isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT)
        do = "make room, or choose another place" if is_full else "choose another place"
        return cls(subject, expected="a place with room that can be written", got=got, do=do)


class FormatError(OutputError):
    """The format of a result's name cannot store the result; trying again does not help."""


class CancelledError(VoxportError):
    """The run was cancelled. No file remains under the names of its outputs."""

    def __init__(self) -> None:
        super().__init__("run", expected="to finish", got="a request to stop", do="start it again when ready")


# Published: part of the HTTP interface and of stored jobs. The most derived class decides.
_KINDS: dict[type[VoxportError], str] = {
    UsageError: "usage",
    NotInstalledError: "not-installed",
    InputError: "input",
    ModelError: "model",
    UnknownModelError: "unknown-model",
    UnknownJobError: "unknown-job",
    LimitError: "limit",
    TimeLimitError: "timeout",
    NoSpaceError: "limit",
    BusyError: "busy",
    OutputError: "output",
    FormatError: "usage",
    CancelledError: "cancelled",
}


def kind_of(error: VoxportError) -> str:
    """Return the error's published kind, such as ``"input"``; ``"internal"`` for any other class."""
    return next((_KINDS[base] for base in type(error).__mro__ if base in _KINDS), "internal")

"""Every failure that a user can cause or cure, as one line: what was expected, what came, what to do."""

from __future__ import annotations


class VoxportError(Exception):
    """Base of all errors that voxport raises on purpose.

    Args:
        subject: what the error is about: a file name, a field, an option.
        expected: what would have been right.
        got: what came instead.
        do: what the user can do about it.
    """

    def __init__(self, subject: str, *, expected: str, got: str, do: str) -> None:
        super().__init__(f"{subject}: expected {expected}, got {got}; {do}")
        self.subject = subject
        self.expected = expected
        self.got = got
        self.do = do


class UsageError(VoxportError):
    """An option or argument that makes no sense, or not with the others."""


class InputError(VoxportError):
    """A volume that cannot be read or does not fit the model."""


class ModelError(VoxportError):
    """A model file, card or certificate that is broken or does not hold."""


class UnknownModelError(ModelError):
    """No model of this name is kept."""


class UnknownJobError(VoxportError):
    """No job of this id is kept for the caller."""


class BusyError(VoxportError):
    """There is no room for this request now; it may be sent again after ``retry_after_seconds``."""

    def __init__(self, subject: str, *, expected: str, got: str, retry_after_seconds: float) -> None:
        super().__init__(subject, expected=expected, got=got, do=f"try again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class LimitError(VoxportError):
    """A stated limit (memory, voxels) that the request exceeds."""


class TimeLimitError(LimitError):
    """A stated limit of time that the run exceeds."""


class NoSpaceError(LimitError):
    """A place that is too full now for what would fit if it were not."""


class OutputError(VoxportError):
    """A result that could not be written."""

    @classmethod
    def cannot_write(cls, subject: str, reason: OSError | str) -> OutputError:
        """The error for a place that the system does not let us write to."""
        got = reason if isinstance(reason, str) else (reason.strerror or "an error").lower()
        return cls(subject, expected="a place with room that can be written", got=got, do="choose another place")


class CancelledError(VoxportError):
    """The run was asked to stop; nothing was left under the outputs' names."""

    def __init__(self) -> None:
        super().__init__("run", expected="to finish", got="a request to stop", do="start it again when ready")


# The most special class of an error decides; the words are part of the HTTP interface and of stored jobs.
_KINDS: dict[type[VoxportError], str] = {
    UsageError: "usage",
    InputError: "input",
    ModelError: "model",
    UnknownModelError: "unknown-model",
    UnknownJobError: "unknown-job",
    LimitError: "limit",
    TimeLimitError: "timeout",
    NoSpaceError: "limit",
    BusyError: "busy",
    OutputError: "output",
    CancelledError: "cancelled",
}


def kind_of(error: VoxportError) -> str:
    """The kind of an error in one word, for programs; ``internal`` for a class of no kind."""
    return next((_KINDS[base] for base in type(error).__mro__ if base in _KINDS), "internal")

"""Errors of the client, and the errors that a server's problem details (RFC 9457) stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..contract.problem import URN
from ..domain.errors import (
    BusyError,
    InputError,
    LimitError,
    ModelError,
    NotInstalledError,
    OutputError,
    TimeLimitError,
    UnknownJobError,
    UnknownModelError,
    UsageError,
    VoxportError,
)
from ..domain.plain import one_line as on_one_line

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
    line = on_one_line(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


class _Kind(NamedTuple):
    """Error class and default texts of a kind of problem."""

    error: type[VoxportError]
    expected: str
    do: str


_ASK = "ask who runs the server"
_KINDS = {
    "usage": _Kind(UsageError, "fields that the server takes", "correct the request"),
    "not-installed": _Kind(NotInstalledError, "a package on the server", f"{_ASK} to install it"),
    "input": _Kind(InputError, "a volume that can be segmented", "correct the volume"),
    "model": _Kind(ModelError, "a model that can do this", "choose another model"),
    "unknown-model": _Kind(UnknownModelError, "a model that the server has", "choose one of its models"),
    "unknown-job": _Kind(UnknownJobError, "one of your jobs", "list your jobs"),
    "conflict": _Kind(UsageError, "a job in a state for this", "see its state"),
    "not-found": _Kind(RemoteError, "a path that the server has", f"{_ASK}, which may be of another version"),
    "worker-lost": _Kind(RemoteError, "a run that ends", f"try the job again, or {_ASK}"),
    "model-unavailable": _Kind(ModelError, "a model that is ready", _ASK),
    "limit": _Kind(LimitError, "a request within the server's limits", "send less at once"),
    "timeout": _Kind(TimeLimitError, "a run within the server's time limit", f"send a smaller volume, or {_ASK}"),
    "output": _Kind(OutputError, "room for results on the server", _ASK),
    "unauthorised": _Kind(UsageError, "an API key that the server knows", f"set VOXPORT_API_KEY, or {_ASK} for a key"),
    "forbidden": _Kind(UsageError, "a caller that the server is open to", f"{_ASK} for an API key"),
    "busy": _Kind(BusyError, "room in the server's queue", ""),
    "rate": _Kind(BusyError, "fewer requests in a minute", ""),
    "unavailable": _Kind(BusyError, "a job queue that the server can reach", ""),
}
_OTHER = _Kind(RemoteError, "an answer", f"{_ASK}, whose log has the reason")
_DEFAULT_WAIT_SECONDS = 10.0


def problem_error(
    problem: Mapping[str, Any], url: str, localised: Callable[[str], str] = str, retry_after: str | None = None
) -> VoxportError:
    """Return the error for the members of problem details, any of which may be missing.

    ``url`` is the default subject; ``localised`` replaces the server's names of volumes by local ones; the seconds of
    the header ``retry_after`` become part of ``do``.
    """
    kind = _KINDS.get(str(problem.get("type", "")).removeprefix(URN), _OTHER)
    subject, expected, got, do = _words(problem, kind, url, localised)
    seconds = float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None
    if kind.error is BusyError:
        wait = _DEFAULT_WAIT_SECONDS if seconds is None else seconds
        return BusyError(subject, expected=expected, got=got, retry_after_seconds=wait)
    if seconds is not None:
        do = f"try again in {seconds:.0f} s"
    elif kind is _OTHER and (request := one_line(problem.get("instance") or "").removeprefix("urn:uuid:")):
        do = f"{do} under {request}"
    return kind.error(subject, expected=expected, got=got, do=do)


def _words(
    problem: Mapping[str, Any], kind: _Kind, url: str, localised: Callable[[str], str]
) -> tuple[str, str, str, str]:
    """Return subject, expected, got and do: members of the problem, or parts of its detail."""
    detail = localised(one_line(problem.get("detail") or problem.get("title") or f"HTTP {problem.get('status')}"))
    words = [problem.get(member) for member in ("expected", "got", "do")]
    if all(isinstance(word, str) for word in words):
        expected, got, do = (localised(one_line(word)) for word in words)
        tail = f": expected {expected}, got {got}; {do}"
        return detail.removesuffix(tail) if detail.endswith(tail) else url, expected, got, do
    subject, first, rest = detail.partition(": expected ")
    expected, second, rest = rest.partition(", got ")
    got, third, do = rest.rpartition("; ")
    return (subject, expected, got, do) if first and second and third else (url, kind.expected, detail, kind.do)

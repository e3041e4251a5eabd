"""Errors of the client, and the errors that a server's refusals stand for (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ..contract.problem import MEDIA_TYPE as PROBLEM
from ..contract.problem import URN
from ..domain.errors import (
    BusyError,
    InputError,
    LimitError,
    ModelError,
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


_ASK = "ask who runs the server"


@dataclass(frozen=True)
class _Kind:
    """Error class and default texts of a kind."""

    error: type[VoxportError]
    expected: str
    do: str


_KINDS = {
    "usage": _Kind(UsageError, "fields that the server takes", "correct the request"),
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
}
_WAIT = {
    "busy": "room in the server's queue",
    "rate": "fewer requests in a minute",
    "unavailable": "a job queue that the server can reach",
}
# the body of a proxy whose server is unavailable
_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_DEFAULT_WAIT_SECONDS = 10.0
_OTHER = _Kind(RemoteError, "an answer", f"{_ASK}, whose log has the reason")


@dataclass(frozen=True)
class Refusal:
    """An unexpected response: status, media type, body, and relevant headers."""

    status: int
    media_type: str
    body: bytes
    retry_after: str | None = None
    location: str | None = None


def error_of(refusal: Refusal, url: str, localised: Callable[[str], str] = str) -> VoxportError:
    """Return the error for a refusal: voxport's, else RemoteError, or UnreachableError for a missing server."""
    if refusal.media_type == PROBLEM:
        try:
            data = json.loads(refusal.body)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, Mapping):
            return problem_error(data, url, localised, refusal.retry_after)
    if refusal.location is not None:
        got = f"a redirect to {one_line(refusal.location)}"
        return RemoteError(url, expected="an answer", got=got, do="give that address, if you trust it")
    got = f"HTTP {refusal.status} {_phrase(refusal.status)}".rstrip()
    if refusal.status in _AWAY:
        return UnreachableError(url, expected="an answer", got=got, do="check that the server behind that address runs")
    got += " without voxport's problem details, as proxies answer"
    if refusal.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        do = "raise the proxy's limit on the size of requests, or send less"
        return LimitError(url, expected="a request within the limit of the proxy on the way", got=got, do=do)
    return RemoteError.wrong_answer(url, expected="an answer of voxport's", got=got)


def problem_error(
    problem: Mapping[str, Any], url: str, localised: Callable[[str], str] = str, retry_after: str | None = None
) -> VoxportError:
    """Return the error for problem details.

    Args:
        problem: members of the problem.
        url: the server, the default subject.
        localised: replaces the server's names of volumes by local ones.
        retry_after: the header; its seconds become part of ``do``.
    """
    name = str(problem.get("type", "")).removeprefix(URN)
    kind = _Kind(BusyError, _WAIT[name], "") if name in _WAIT else _KINDS.get(name, _OTHER)
    subject, expected, got, do = _words(problem, kind, url, localised)
    seconds = float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None
    if name in _WAIT:
        return BusyError(
            subject,
            expected=expected,
            got=got,
            retry_after_seconds=_DEFAULT_WAIT_SECONDS if seconds is None else seconds,
        )
    if seconds is not None:
        do = f"try again in {seconds:.0f} s"
    elif kind is _OTHER and (request := one_line(problem.get("instance") or "").removeprefix("urn:uuid:")):
        do = f"{do} under {request}"
    return kind.error(subject, expected=expected, got=got, do=do)


def _words(
    problem: Mapping[str, Any], kind: _Kind, url: str, localised: Callable[[str], str]
) -> tuple[str, str, str, str]:
    """Subject, what was expected, what came, and what to do."""
    detail = localised(one_line(problem.get("detail") or problem.get("title") or f"HTTP {problem.get('status')}"))
    words = [problem.get(member) for member in ("expected", "got", "do")]
    if not all(isinstance(word, str) for word in words):
        return _words_in(detail) or (url, kind.expected, detail, kind.do)
    expected, got, do = (localised(one_line(word)) for word in words)
    tail = f": expected {expected}, got {got}; {do}"
    return detail.removesuffix(tail) if detail.endswith(tail) else url, expected, got, do


def _words_in(line: str) -> tuple[str, str, str, str] | None:
    """The four parts of a VoxportError's one line; None where it is another line."""
    subject, first, rest = line.partition(": expected ")
    expected, second, rest = rest.partition(", got ")
    got, third, do = rest.rpartition("; ")
    return (subject, expected, got, do) if first and second and third else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""

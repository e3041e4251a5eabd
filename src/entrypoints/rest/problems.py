"""Refusals and failures as answers: RFC 9457 problem details."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...contract.problem import KINDS, MEDIA_TYPE, URN
from ...domain.errors import BusyError, VoxportError, kind_of
from ...domain.plain import one_line

# Starlette's errors have a status only: it stands for its first kind
KIND_OF_STATUS = {known.status: kind for kind, known in reversed(list(KINDS.items())) if kind != "internal"}
# The four parts of a refusal in one line.
_PARTS = re.compile("(?:.*?: )?expected (?P<expected>.*?), got (?P<got>.*); (?P<do>.*)")
# Refusals of the framework: what it expected and got.
_FRAMEWORK = {
    "not-found": ("a path of this service", "another (not found)"),
    "method": ("a method that the path takes", "another (method not allowed)"),
}


@dataclass(frozen=True)
class Problem:
    """One refusal or failure.

    Args:
        kind: a key of `KINDS`.
        detail: one line for the caller: what was expected, what came, what to do.
        extra: further members of the body, such as ``expected``, ``got`` and ``do``.
        headers: response headers that belong to it, such as ``Retry-After``.
    """

    kind: str
    detail: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def about(
        cls, kind: str, subject: str, *, expected: str, got: str, do: str, headers: Mapping[str, str] | None = None
    ) -> Problem:
        """A problem with the parts of a `VoxportError`."""
        detail = f"{subject}: expected {expected}, got {got}; {do}"
        return cls(kind, detail, {"expected": expected, "got": got, "do": do}, headers or {})

    @property
    def status(self) -> int:
        """The HTTP status of its kind."""
        return KINDS[self.kind].status

    @property
    def title(self) -> str:
        """The short sentence of its kind."""
        return KINDS[self.kind].title


class ProblemError(Exception):
    """A problem without an error class of its own."""

    def __init__(
        self, kind: str, subject: str, *, expected: str, got: str, do: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.problem = Problem.about(kind, subject, expected=expected, got=got, do=do, headers=headers)
        super().__init__(self.problem.detail)


INTERNAL = Problem("internal", "an unexpected error; the server's log has it under this request's id")


def problem_of(error: BaseException) -> Problem:
    """The problem of an exception.

    Starlette's HTTP errors keep their status if `KIND_OF_STATUS` has it. Any other error is `INTERNAL`.
    """
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, VoxportError):
        kind = kind_of(error)
        if kind in KINDS and kind != "internal":
            extra = {"expected": error.expected, "got": error.got, "do": error.do}
            return Problem(kind, str(error), extra, retry_after(error))
    elif isinstance(error, HTTPException) and error.status_code in KIND_OF_STATUS:
        return _stated(KIND_OF_STATUS[error.status_code], error)
    return INTERNAL


def _stated(kind: str, error: HTTPException) -> Problem:
    """The problem of an HTTP error, whose words are voxport's or the framework's."""
    headers = error.headers or {}
    if parts := _PARTS.fullmatch(error.detail):
        return Problem(kind, error.detail, parts.groupdict(), headers)
    expected, got = _FRAMEWORK.get(kind, ("a request that can be read", "another"))
    said = "" if kind in _FRAMEWORK else f" ({error.detail.rstrip('.').lower()})"
    return Problem.about(kind, "request", expected=expected, got=got + said, do="see /openapi.json", headers=headers)


def retry_after(error: VoxportError) -> dict[str, str]:
    """The header Retry-After of a `BusyError`, in whole seconds and at least one."""
    return {"Retry-After": str(max(1, ceil(error.retry_after_seconds)))} if isinstance(error, BusyError) else {}


def in_protocol(problem: Problem, path: str) -> Problem:
    """Below /v2, the problem with the member ``error`` of the Open Inference Protocol."""
    if path != "/v2" and not path.startswith("/v2/"):
        return problem
    return replace(problem, extra={**problem.extra, "error": problem.detail})


def problem_body(problem: Problem, request_id: str) -> dict[str, Any]:
    """The members of the body (RFC 9457); texts from the caller are put on one line."""
    extra = {name: one_line(value) if isinstance(value, str) else value for name, value in problem.extra.items()}
    return {
        **extra,
        "type": f"{URN}{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": one_line(problem.detail),
        "instance": f"urn:uuid:{request_id}",
    }


def problem_response(problem: Problem, request_id: str) -> Response:
    """The problem as an HTTP response."""
    body = json.dumps(problem_body(problem, request_id)).encode()
    return Response(body, problem.status, dict(problem.headers), MEDIA_TYPE)

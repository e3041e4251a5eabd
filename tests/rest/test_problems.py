"""Problem details: every error has one kind, one status and one form."""

from __future__ import annotations

import json

import pytest
from starlette.exceptions import HTTPException
from voxport.contract.problem import KINDS
from voxport.domain.errors import (
    BusyError,
    CancelledError,
    InputError,
    LimitError,
    ModelError,
    OutputError,
    TimeLimitError,
    UnknownModelError,
    UsageError,
    VoxportError,
    kind_of,
)
from voxport.entrypoints.rest.problems import Problem, problem_body, problem_of, problem_response

REQUEST = "8d2b1c9e-6f5a-4f0e-9d55-1b7f2f0a3c11"


def words(error: type[VoxportError]) -> VoxportError:
    return error("volume", expected="3 axes", got="2", do="send a volume")


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (words(UsageError), "usage", 422),
        (words(InputError), "input", 422),
        (words(ModelError), "model", 422),
        (words(UnknownModelError), "unknown-model", 404),
        (words(LimitError), "limit", 413),
        (words(TimeLimitError), "timeout", 504),
        (words(OutputError), "output", 507),
        (CancelledError(), "cancelled", 503),
        (BusyError("queue", expected="room", got="16 waiting", retry_after_seconds=4.2), "busy", 503),
    ],
)
def test_every_error_has_its_kind(error: VoxportError, kind: str, status: int) -> None:
    problem = problem_of(error)
    assert (problem.kind, problem.status) == (kind, status)
    assert problem.detail == str(error)
    assert problem.extra == {"expected": error.expected, "got": error.got, "do": error.do}


def test_every_class_of_error_has_a_kind() -> None:
    own = [error for error in VoxportError.__subclasses__() if error.__module__ == VoxportError.__module__]
    assert own
    assert [error for error in own if kind_of(error.__new__(error)) not in KINDS] == []
    assert [error for error in own if kind_of(error.__new__(error)) == "internal"] == []


def test_a_subclass_is_of_its_bases_kind() -> None:
    class TooManySlicesError(LimitError):
        pass

    assert problem_of(words(TooManySlicesError)).kind == "limit"


@pytest.mark.parametrize(
    "error", [KeyError("/srv/secret.nii.gz"), words(VoxportError), ExceptionGroup("secret", [ValueError()])]
)
def test_of_an_unexpected_error_the_caller_learns_nothing(error: Exception) -> None:
    problem = problem_of(error)
    assert (problem.kind, problem.status) == ("internal", 500)
    assert problem.detail == "an unexpected error; the server's log has it under this request's id"
    assert problem.extra == {}


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (4.2, "5"), (60.0, "60")])
def test_busy_says_when_to_come_back(seconds: float, header: str) -> None:
    error = BusyError("queue", expected="room", got="16 waiting", retry_after_seconds=seconds)
    assert problem_response(problem_of(error), REQUEST).headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "malformed"), (404, "not-found"), (405, "method"), (406, "not-acceptable"), (415, "media-type")],
)
def test_the_framework_s_own_errors_keep_their_status(status: int, kind: str) -> None:
    problem = problem_of(HTTPException(status, "what it says", {"Allow": "GET"}))
    assert (problem.kind, problem.status) == (kind, status)
    assert set(problem.extra) == {"expected", "got", "do"}
    assert problem.headers == {"Allow": "GET"}


def test_a_status_that_no_kind_has_is_internal() -> None:
    assert problem_of(HTTPException(418, "secret")).kind == "internal"


def test_the_body_is_problem_details() -> None:
    problem = Problem.about("usage", "overlap", expected="0 to 0.9", got="2", do="lower it", headers={"X-Extra": "1"})
    response = problem_response(problem, REQUEST)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["X-Extra"] == "1"
    assert json.loads(bytes(response.body)) == {
        "type": "urn:voxport:problem:usage",
        "title": KINDS["usage"].title,
        "status": 422,
        "detail": "overlap: expected 0 to 0.9, got 2; lower it",
        "instance": f"urn:uuid:{REQUEST}",
        "expected": "0 to 0.9",
        "got": "2",
        "do": "lower it",
    }


def test_extra_members_do_not_replace_the_standard_ones() -> None:
    body = problem_body(Problem("input", "what it is", {"status": 200, "slice": 4}), REQUEST)
    assert (body["status"], body["slice"]) == (422, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_an_error_with_a_title(kind: str) -> None:
    assert 400 <= KINDS[kind].status < 600
    assert KINDS[kind].title[0].isupper()
    assert not KINDS[kind].title.endswith(".")

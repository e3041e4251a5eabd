"""Every refusal has one shape and voxport's words; HEAD, pages of jobs and other origins are answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from voxport.contract.problem import KINDS
from voxport.contract.reading import expected_and_got

from .jobbing import accepted, submit
from .odd import SCAN
from .shielded import BEARER, KEYS, ask, kind_of, make_shield

PYDANTIC = ("should be", "should have", "field required", "value error", "input should", "validation", "<class")


def problem(answer: httpx.Response, kind: str) -> dict[str, Any]:
    """The problem of an answer, in the one shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:voxport:problem:{kind}", body
    assert (answer.status_code, body["status"], body["title"]) == (
        KINDS[kind].status,
        answer.status_code,
        body["title"],
    )
    assert body["instance"].startswith("urn:uuid:")
    for part in ("expected", "got", "do"):
        assert body[part]
        assert not any(words in body[part].lower() for words in PYDANTIC), body
    assert body["expected"] != body["got"]
    assert not any(words in body["detail"].lower() for words in PYDANTIC), body
    return body


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/jobs/x/y/z", "/v1/models/", "/segment/", "/redoc", "/metrics/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_a_path_that_does_not_exist(http: httpx.Client, path: str, method: str) -> None:
    answer = http.request(method, path)
    if answer.status_code != 405:
        problem(
            answer, "not-found" if answer.status_code == 404 and "job" not in answer.json()["type"] else "unknown-job"
        )


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/segment"), ("PUT", "/v1/jobs"), ("POST", "/health"), ("PATCH", "/v1/models"), ("DELETE", "/predict")],
)
def test_a_method_that_a_path_does_not_take(http: httpx.Client, method: str, path: str) -> None:
    problem(http.request(method, path), "method")


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/v1/jobs", "/predict"])
def test_a_media_type_that_a_path_does_not_take(http: httpx.Client, path: str) -> None:
    problem(http.post(path, content=b"x", headers={"Content-Type": "text/plain"}), "media-type")


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/v1/jobs"])
def test_fields_of_another_kind(http: httpx.Client, path: str) -> None:
    scan = {"volume": SCAN}
    assert problem(http.post(path, files={"volume": (None, "text")}), "usage")["expected"].startswith("a file")
    assert problem(http.post(path, files=scan, data={"overlap": "half"}), "usage")["expected"] == "a number"
    problem(http.post(path, files=scan, data={"blending": "b" * 99}), "usage")
    problem(http.post(path, files=scan, data={"patch": "1,2"}), "usage")
    problem(http.post(path, files={"other": b"x"}), "usage")


@pytest.mark.parametrize(
    "body", [{}, {"volume": 1}, {"volume": [[[1]]], "spacing": "x"}, {"volume": [[[1]]], "colour": 1}]
)
def test_arrays_of_another_kind(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = http.post("/predict", json=body)
    problem(answer, answer.json()["type"].removeprefix("urn:voxport:problem:"))


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/v1/models", "/v1/jobs", "/metrics", "/openapi.json"])
def test_head_is_answered_as_get_without_the_body(http: httpx.Client, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.content == b""


def test_head_of_a_stream_of_events_ends(http: httpx.Client) -> None:
    job = accepted(submit(http))
    answer = http.head(f"/v1/jobs/{job['id']}/events")
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/jobs", "/", "/metrics"])
def test_a_name_in_the_query_that_no_route_takes(http: httpx.Client, path: str) -> None:
    assert "colour" in problem(http.get(path, params={"colour": "red"}), "usage")["detail"]


def test_jobs_come_in_pages(http: httpx.Client) -> None:
    ids = [accepted(submit(http))["id"] for _ in range(3)][::-1]
    listed = [job["id"] for job in http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]]
    pages = [http.get("/v1/jobs", params={"limit": 1, "offset": n}).json()["jobs"] for n in range(3)]
    assert [page[0]["id"] for page in pages] == ids == listed[:3]
    assert http.get("/v1/jobs", params={"offset": len(listed) + 5}).json() == {"jobs": []}
    problem(http.get("/v1/jobs", params={"offset": -1}), "usage")


class Odd(BaseModel, extra="forbid"):
    """A field of each kind."""

    whole: int
    number: float
    truth: bool
    texts: list[str]
    pair: tuple[int, int]
    mapping: dict[str, int]


@pytest.mark.parametrize("value", [None, "x", -1.5, [], {}, [1, 2, 3], {"a": "b"}, float("nan"), b"\xff", object()])
def test_no_wrong_value_is_answered_in_the_words_of_pydantic(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Odd).validate_python(dict.fromkeys([*Odd.model_fields, "more"], value))
    for found in caught.value.errors():
        expected, got = expected_and_got(found)
        assert expected != got
        assert not any(words in f"{expected} {got}".lower() for words in PYDANTIC)


ORIGIN = "https://viewer.example"


def test_pages_of_named_origins_may_call_the_service() -> None:
    shield = make_shield(keys=KEYS, cors_origins=(ORIGIN,))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = ask(shield, "OPTIONS", "/echo", headers={"Origin": ORIGIN, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    answer = ask(shield, "GET", "/v1/models/x", headers={"Origin": ORIGIN, **BEARER})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    other = ask(shield, "GET", "/v1/models/x", headers={"Origin": "https://other.example", **BEARER})
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"Origin": "https://other.example"}, "origin"),
        ({"Access-Control-Request-Method": "PUT"}, "method"),
        ({"Access-Control-Request-Headers": "x-other"}, "headers"),
    ],
)
def test_a_preflight_that_is_not_allowed_gets_a_problem(changed: dict[str, str], named: str) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", **changed}
    answer = ask(make_shield(cors_origins=(ORIGIN,)), "OPTIONS", "/echo", headers=asked)
    assert kind_of(answer) == "forbidden"
    assert answer.json()["got"] == f"disallowed cors {named}"


def test_a_service_without_keys_lets_named_origins_through() -> None:
    origin = {"Origin": ORIGIN}
    assert ask(make_shield(cors_origins=(ORIGIN,)), "GET", "/livez", headers=origin).status_code == 200
    assert ask(make_shield(), "GET", "/livez", headers=origin).status_code == 403


def test_without_the_setting_no_origin_is_named() -> None:
    answer = ask(make_shield(keys=KEYS), "GET", "/livez", headers={"Origin": ORIGIN, **BEARER})
    assert "Access-Control-Allow-Origin" not in answer.headers

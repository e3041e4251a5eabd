"""The OpenAPI document is complete, and true of a service that is really started."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from .jobbing import accepted, ended, slow_job, stop_job, submit
from .odd import SCAN, VALUES, npy
from .serving import Server

Case = schemathesis.Case[Any]
OPERATIONS = [
    ("/segment", "POST"),
    ("/v1/plan", "POST"),
    ("/predict", "POST"),
    ("/v1/jobs", "POST"),
    ("/v1/jobs", "GET"),
    ("/v1/jobs/{id}", "GET"),
    ("/v1/jobs/{id}", "DELETE"),
    ("/v1/jobs/{id}/cancel", "POST"),
    ("/v1/jobs/{id}/retry", "POST"),
    ("/v1/jobs/{id}/events", "GET"),
    ("/v1/jobs/{id}/mask", "GET"),
    ("/v1/jobs/{id}/probabilities", "GET"),
    ("/v1/jobs/{id}/uncertainty", "GET"),
    ("/v1/jobs/{id}/statistics", "GET"),
    ("/v1/jobs/{id}/report", "GET"),
    ("/v1/jobs/{id}/preview.png", "GET"),
    ("/", "GET"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
    ("/livez", "GET"),
    ("/readyz", "GET"),
]
TRUE = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW = settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.client() as http:
        answer = http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def read(document: Mapping[str, Any], server: Server) -> OpenApiSchema:
    """The document as schemathesis reads it."""
    config = schemathesis.Config.from_dict(
        {"seed": 1, "base-url": server.url, "generation": {"deterministic": True, "database": "none"}}
    )
    return schemathesis.openapi.from_dict(copy.deepcopy(dict(document)), config=config)


@pytest.fixture(scope="module")
def described(document: dict[str, Any], server: Server) -> OpenApiSchema:
    return read(document, server)


def check(case: Case) -> schemathesis.Response:
    """Send a request, and compare the answer with the document."""
    return case.call_and_validate(checks=[*TRUE, negative_data_rejection], timeout=60)


def test_the_document_is_valid_and_has_every_route(described: OpenApiSchema, document: dict[str, Any]) -> None:
    described.validate()
    assert document["openapi"] == "3.1.0"
    assert sorted((path, method.upper()) for path in described for method in described[path]) == sorted(OPERATIONS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_borders_of_every_field_are_as_the_document_says(described: OpenApiSchema, path: str, method: str) -> None:
    cases = described.iter_coverage_cases(
        described[path][method],
        generation_modes=list(GenerationMode),
        generation_config=described.config.generation_for(operation=described[path][method]),
    )
    assert [check(case).status_code for case in cases]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_keeps_to_the_document_is_answered_so(described: OpenApiSchema, path: str, method: str) -> None:
    @FEW
    @given(case=described[path][method].as_strategy())
    def send(case: Case) -> None:
        check(case)

    send()


@pytest.mark.parametrize(("path", "method"), OPERATIONS[:4])
def test_what_does_not_keep_to_the_document_is_refused(described: OpenApiSchema, path: str, method: str) -> None:
    @FEW
    @given(case=described[path][method].as_strategy(GenerationMode.NEGATIVE))
    def send(case: Case) -> None:
        check(case)

    send()


@pytest.mark.parametrize(
    ("path", "accepts", "forms"),
    [
        (
            "/segment",
            ["*/*", "application/json", "text/html"],
            ["application/gzip", "application/json", "application/zip"],
        ),
        ("/v1/plan", ["*/*"], ["application/json"]),
        ("/predict", ["*/*"], ["application/json"]),
    ],
)
def test_real_volumes_are_answered_in_every_form(
    described: OpenApiSchema, path: str, accepts: list[str], forms: list[str]
) -> None:
    """The fields are random; the volume and the models are some that the service has."""
    seen: set[str] = set()

    @settings(FEW, max_examples=80)
    @given(case=described[path]["POST"].as_strategy(), accept=st.sampled_from(accepts), data=st.data())
    def send(case: Case, accept: str, data: st.DataObject) -> None:
        form = case.media_type == "multipart/form-data"
        content = VALUES.tolist() if not form else npy() if path == "/predict" else SCAN
        fields: dict[str, Any] = {**as_mapping(case.body), "volume": content if path == "/predict" else [content]}
        if "model" in fields:
            names = st.sampled_from(["edges", "edges:1.0.0", "pair", "other"])
            fields["model"] = data.draw(st.lists(names, max_size=3) if path == "/segment" else names)
        if "patch" in fields:
            fields["patch"] = data.draw(st.sampled_from(["8,8,8", " 1, 2 ,3", "0,1,1", "99999999,1,4"]))
        if data.draw(st.booleans(), label="without options of the run, of which most random ones are refused"):
            fields = {name: value for name, value in fields.items() if name in ("volume", "model", "outputs")}
        case.body = fields
        answer = case.call_and_validate(checks=TRUE, headers={"Accept": accept}, timeout=60)
        seen.add(f"{answer.status_code} {answer.headers['content-type'][0]}")

    send()
    assert {f"200 {form}" for form in forms} <= seen
    assert {told.split()[0] for told in seen} <= {"200", "406", "422"}


@pytest.fixture(scope="module")
def jobs(server: Server) -> list[str]:
    """Ids of jobs that are done, with and without probabilities, and of one that was cancelled."""
    with server.client() as http:
        made = [
            accepted(submit(http, outputs=outputs)) for outputs in (["mask", "probabilities", "uncertainty"], ["mask"])
        ]
        for job in made:
            assert ended(http, job)["state"] == "done"
        slow = slow_job(http)
        stop_job(http, slow)
    return [job["id"] for job in (*made, slow)]


@pytest.mark.parametrize(
    ("path", "forms"),
    [
        ("/v1/jobs/{id}", ["200 application/json"]),
        ("/v1/jobs/{id}/events", ["200 text/event-stream"]),
        ("/v1/jobs/{id}/mask", ["200 application/gzip", "409 application/problem+json"]),
        (
            "/v1/jobs/{id}/probabilities",
            ["200 application/gzip", "404 application/problem+json", "409 application/problem+json"],
        ),
        (
            "/v1/jobs/{id}/uncertainty",
            ["200 application/gzip", "404 application/problem+json", "409 application/problem+json"],
        ),
        (
            "/v1/jobs/{id}/statistics",
            [
                "200 application/json",
                "200 text/csv",
                "304",
                "406 application/problem+json",
                "409 application/problem+json",
            ],
        ),
        ("/v1/jobs/{id}/report", ["200 application/json", "409 application/problem+json"]),
        (
            "/v1/jobs/{id}/preview.png",
            ["200 image/png", "409 application/problem+json", "422 application/problem+json"],
        ),
    ],
)
def test_real_jobs_are_answered_in_every_form(
    described: OpenApiSchema, jobs: list[str], path: str, forms: list[str]
) -> None:
    seen: set[str] = set()

    @settings(FEW, max_examples=40)
    @given(
        case=described[path]["GET"].as_strategy(),
        id=st.sampled_from(jobs),
        accept=st.sampled_from(["*/*", "application/json", "text/csv", "text/html"]),
        known=st.sampled_from(["*", '"other"']),
    )
    def send(case: Case, id: str, accept: str, known: str) -> None:
        case.path_parameters = {"id": id}
        if path.endswith("/statistics"):
            case.headers["If-None-Match"] = known
        answer = case.call_and_validate(checks=TRUE, headers={"Accept": accept}, timeout=60)
        form = answer.headers.get("content-type", [""])[0].partition(";")[0]
        seen.add(f"{answer.status_code} {form}".strip())

    send()
    assert set(forms) <= seen


def test_changes_of_real_jobs_are_answered_as_the_document_says(described: OpenApiSchema, server: Server) -> None:
    with server.client() as http:
        slow, waiting = slow_job(http), accepted(submit(http))
    told = []
    for path, method, job in (
        ("/v1/jobs/{id}", "DELETE", waiting),
        ("/v1/jobs/{id}/retry", "POST", slow),
        ("/v1/jobs/{id}/retry", "POST", waiting),
        ("/v1/jobs/{id}", "DELETE", slow),
    ):
        case = described[path][method].Case(path_parameters={"id": job["id"]})
        told.append(case.call_and_validate(checks=TRUE, timeout=60).status_code)
    assert told == [202, 409, 202, 202]
    with server.client() as http:
        assert ended(http, waiting)["state"] == "done"
    deleted = described["/v1/jobs/{id}"]["DELETE"].Case(path_parameters={"id": waiting["id"]})
    assert deleted.call_and_validate(checks=TRUE, timeout=60).status_code == 204


def as_mapping(body: object) -> Mapping[str, Any]:
    assert isinstance(body, Mapping)
    return body


def test_a_lie_would_be_found(document: dict[str, Any], server: Server) -> None:
    """What the tests above look for is there to be found."""
    unstable = copy.deepcopy(document)
    unstable["components"]["schemas"]["Health"]["properties"]["in_flight"] = {"type": "string"}
    unheard = copy.deepcopy(document)
    unheard["paths"]["/health"]["get"]["responses"]["200"]["headers"]["Voxport-Secret"] = {"required": True}
    unsaid = copy.deepcopy(document)
    unsaid["paths"]["/health"]["get"]["responses"] = {"418": {"description": "a teapot"}}
    unlike = copy.deepcopy(document)
    health = unlike["paths"]["/health"]["get"]["responses"]["200"]
    health["content"] = {"text/html": health["content"]["application/json"]}
    for lie, words in ((unstable, "schema"), (unheard, "headers"), (unsaid, "status code"), (unlike, "Content-Type")):
        with pytest.raises(FailureGroup, match=f"(?i){words}"):
            check(read(lie, server)["/health"]["GET"].Case())

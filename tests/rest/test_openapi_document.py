"""The OpenAPI document introduces every route, has examples that work, and leaves no problem and no member out."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from voxport.application import Application
from voxport.contract.problem import KINDS
from voxport.entrypoints.rest.app import create_app

from .jobbing import accepted, ended, submit
from .odd import SCAN, VALUES, npy
from .serving import Server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.client() as http:
        answer = http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_every_route_is_introduced(document: dict[str, Any]) -> None:
    identifiers = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(identifiers)) == len(list(operations(document)))
    for path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"].endswith("."), path
        assert operation["tags"], path
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], path


def test_every_field_of_a_body_is_explained_or_plain(document: dict[str, Any]) -> None:
    for name in ("Body_segment", "Body_plan", "Body_submit_job"):
        body = document["components"]["schemas"][name]
        assert body["additionalProperties"] is False
        for field in body["properties"].values():
            assert field["description"], field


def test_every_body_has_examples_that_fit_it(document: dict[str, Any], http: httpx.Client) -> None:
    """And that are answered: with a real file for the one that they stand for."""
    for path, operation in operations(document):
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            validator = jsonschema_rs.Draft202012Validator({**body["schema"], "components": document["components"]})
            for name, example in body["examples"].items():
                validator.validate(example["value"])
                answer = send_example(http, path, media_type, example["value"])
                assert answer.status_code == (202 if path == "/v1/jobs" else 200), (path, name, answer.text)
            assert body["examples"], path


def send_example(http: httpx.Client, path: str, media_type: str, example: Mapping[str, Any]) -> httpx.Response:
    if media_type == "application/json":
        return http.post(path, json=example)
    content = npy() if path == "/predict" else SCAN
    return http.post(path, files={"volume": content}, data={k: v for k, v in example.items() if k != "volume"})


def test_arrays_may_come_as_lists_or_as_a_file(document: dict[str, Any]) -> None:
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    schemas = document["components"]["schemas"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ArrayBody"}
    assert set(schemas["ArrayBody"]["properties"]) == set(schemas["ArrayForm"]["properties"])
    assert schemas["ArrayForm"]["required"] == schemas["ArrayBody"]["required"] == ["volume"]


def test_every_problem_is_described(document: dict[str, Any]) -> None:
    told: set[int] = set()
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            assert response["headers"]["Voxport-Request"], path
            if int(status) < 400 or (path, status) == ("/health", "503"):
                continue
            assert set(response["content"]) == {"application/problem+json"}, path
            schema = response["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemDetails"}
            told.add(int(status))
            kinds = re.findall("`([a-z-]+)`", response["description"])
            assert kinds, path
            assert {KINDS[kind].status for kind in kinds} == {int(status)}
    # a described operation is never answered that its method is wrong
    assert told == {kind.status for kind in KINDS.values()} - {405}
    details = document["components"]["schemas"]["ProblemDetails"]["properties"]
    assert details["type"]["enum"] == [f"urn:voxport:problem:{kind}" for kind in KINDS]


def test_when_to_come_back_is_told(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        if "429" in operation["responses"]:
            assert operation["responses"]["429"]["headers"]["Retry-After"]["required"], path
    for path in ("/segment", "/v1/plan", "/predict", "/v1/jobs"):
        assert document["paths"][path]["post"]["responses"]["503"]["headers"]["Retry-After"], path
    assert document["paths"]["/v1/jobs/{id}/mask"]["get"]["responses"]["409"]["headers"]["Retry-After"]


def test_keys_are_asked_for_where_the_service_has_some(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPORT_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("VOXPORT_API_KEYS", "correct-horse-battery")
    guarded = create_app(Application.build()).openapi()
    either: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    for described, keys in ((document, []), (guarded, either)):
        assert described["components"]["securitySchemes"] == {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operation in operations(described):
            assert operation["security"] == ([] if path in ("/livez", "/readyz") else keys), path


def test_answers_say_nothing_that_is_not_described(document: dict[str, Any], http: httpx.Client) -> None:
    scan = {"volume": SCAN}
    wants_json = {"Accept": "application/json"}
    several = {"model": ["edges", "pair"]}
    job = ended(http, accepted(submit(http)))
    done = http.get(f"/v1/jobs/{job['id']}")
    answers = {
        "ModelDetails": http.get("/v1/models/two-photon-vessels"),
        "Models": http.get("/v1/models"),
        "Health": http.get("/health"),
        "Plan": http.post("/v1/plan", files=scan),
        "Results": http.post("/segment", files=scan, data=several, headers=wants_json),
        "Prediction": http.post("/predict", json={"volume": VALUES.tolist(), "probabilities": True}),
        "ProblemDetails": http.get("/v1/models/nothing"),
        "JobAnswer": done,
        "JobsAnswer": http.get("/v1/jobs"),
        "Report": http.get(f"{done.request.url}/report"),
        "StatisticsReport": http.get(f"{done.request.url}/statistics"),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}"}
        assert list(undescribed(schema, answer.json(), document, name)) == []
    archive = http.post("/segment", files=scan, data={"outputs": ["mask", "statistics", "report"]})
    members = zipfile.ZipFile(io.BytesIO(archive.content))
    for member, name in (("edges-1.0.0/report.json", "Report"), ("edges-1.0.0/statistics.json", "StatisticsReport")):
        schema = {"$ref": f"#/components/schemas/{name}"}
        assert list(undescribed(schema, json.loads(members.read(member)), document, name)) == []


def undescribed(schema: Mapping[str, Any], value: object, document: Mapping[str, Any], at: str) -> Iterator[str]:
    """Members of an answer that its schema does not name."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", ()):
        yield from undescribed(choice, value, document, at)
    if isinstance(value, dict) and "properties" in schema:
        for name, member in value.items():
            if name not in schema["properties"]:
                yield f"{at}.{name}"
            else:
                yield from undescribed(schema["properties"][name], member, document, f"{at}.{name}")
    if isinstance(value, list):
        for member in value:
            yield from undescribed(schema.get("items", {}), member, document, f"{at}[]")

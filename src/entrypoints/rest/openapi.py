"""The OpenAPI document: what every route may answer, which keys open it, and examples of what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ...contract.problem import KINDS, MEDIA_TYPE, ProblemDetails
from ...contract.service import ArrayBody, Health, PredictFields, Results
from .routing import JSON, MULTIPART

Responses = dict[int | str, dict[str, Any]]

_PROBE_KINDS = ("malformed", "forbidden", "limit", "media-type", "usage", "internal")
GUARDED_KINDS = (*_PROBE_KINDS, "unauthorised", "rate")
RUN_KINDS = ("unknown-model", "usage", "input", "model", "busy", "cancelled", "timeout", "output")
_PROBES = ("/livez", "/readyz")
_GZIP, _ZIP = "application/gzip", "application/zip"
_RETRY = {"description": "Seconds until it is worth asking again.", "schema": {"type": "integer", "minimum": 1}}
_CHALLENGE = {"description": "How to send a key.", "required": True, "schema": {"type": "string"}}
_REQUEST_ID = {
    "description": "The id of this request, as in the log.",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}


def binary(media_type: str) -> dict[str, Any]:
    """A body of this media type that is no JSON."""
    return {"schema": {"type": "string", "contentMediaType": media_type}}


def problems(*kinds: str) -> Responses:
    """Answers that are problems of these kinds."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    described: Responses = {}
    for kind in (name for name in KINDS if name in kinds):
        status, title = KINDS[kind]
        line = f"`{kind}`: {title}."
        if status in described:
            described[status]["description"] += f" {line}"
        else:
            described[status] = {"description": line, "content": {MEDIA_TYPE: {"schema": schema}}}
    for status, header in ((409, _RETRY), (429, {**_RETRY, "required": True}), (503, _RETRY)):
        if status in described:
            described[status]["headers"] = {"Retry-After": header}
    if 401 in described:
        described[401]["headers"] = {"WWW-Authenticate": _CHALLENGE}
    return described


ALIVE = problems(*_PROBE_KINDS)
READY = problems(*_PROBE_KINDS, "busy")
LISTED = problems(*GUARDED_KINDS)
NAMED = problems(*GUARDED_KINDS, "unknown-model")
RUN = problems(*GUARDED_KINDS, *RUN_KINDS)
HEALTH: Responses = {**LISTED, 503: {"description": "The default model cannot be used.", "model": Health}}
METRICS: Responses = {**LISTED, 200: {"description": "Prometheus' text format."}}
SEGMENTED: Responses = {
    **problems(*GUARDED_KINDS, *RUN_KINDS, "not-acceptable"),
    200: {
        "description": "The mask, gzipped NIfTI; a zip where several models or other outputs are asked for; or reports "
        "alone, where Accept prefers JSON.",
        "model": Results,
        "content": {_GZIP: binary(_GZIP), _ZIP: binary(_ZIP)},
        "headers": {
            "Voxport-Report": {
                "description": "Of one mask: its report, as JSON in ASCII, without the model's card.",
                "schema": {"type": "string", "contentMediaType": JSON},
            },
            "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
        },
    },
}

VOLUME = "the file's content"
_ONE_VOXEL_EACH = {"volume": [[[0, 40], [80, 120]], [[10, 50], [90, 130]]], "spacing": [1.0, 1.0, 5.0], "unit": "um"}


def _examples(**values: dict[str, Any]) -> dict[str, Any]:
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}


def form(**values: dict[str, Any]) -> dict[str, Any]:
    """A form with examples by name."""
    return {"requestBody": {"required": True, "content": {MULTIPART: {"examples": _examples(**values)}}}}


SEGMENT_BODY = form(
    a_mask_by_the_default_model={"volume": [VOLUME]},
    a_mask_and_its_statistics={"volume": [VOLUME], "model": ["two-photon-vessels"], "outputs": ["mask", "statistics"]},
    two_models={"volume": [VOLUME], "model": ["two-photon-vessels", "nuclei:1.2.0"], "overlap": 0.25},
)
PLAN_BODY = form(
    as_the_card_says={"volume": [VOLUME]},
    smaller_tiles={"volume": [VOLUME], "model": "two-photon-vessels", "patch": "64,64,16"},
)
ARRAY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {"$ref": f"#/components/schemas/{ArrayBody.__name__}"},
                "examples": _examples(nested_lists=_ONE_VOXEL_EACH),
            },
            MULTIPART: {
                "schema": {"$ref": "#/components/schemas/ArrayForm"},
                "examples": _examples(a_file_of_numpy={"volume": VOLUME, "spacing": "1,1,5", "unit": "um"}),
            },
        },
    }
}


def describe(app: FastAPI, *, needs_key: bool) -> dict[str, Any]:
    """The document of an application.

    Args:
        app: with all its routes.
        needs_key: whether a key is asked for, except by probes.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document["components"]
    for model in (ProblemDetails, ArrayBody):
        schema = model.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        components["schemas"][model.__name__] = schema
    components["schemas"]["ArrayForm"] = _array_form()
    for framework in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(framework, None)
    for body in (schema for name, schema in components["schemas"].items() if name.startswith("Body_")):
        body["additionalProperties"] = False
        # generators of clients send a file for this format alone
        body["properties"]["volume"]["items"] = {"type": "string", "format": "binary"}
    components["headers"] = {"Voxport-Request": _REQUEST_ID}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    keys: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    for path, operation in _operations(document):
        operation["security"] = [] if path in _PROBES or not needs_key else keys
        content = operation["responses"].get("200", {}).get("content", {})
        if JSON in content and _GZIP in content:  # generators of clients expect the first
            content[JSON] = content.pop(JSON)
        # FastAPI adds its own shape of errors to every route that takes anything
        if not _is_ours(operation["responses"].get("422")):
            operation["responses"].pop("422", None)
        for response in operation["responses"].values():
            for media in response.get("content", {}).values():
                media.pop("itemSchema", None)  # FastAPI's word for events, from OpenAPI 3.2
            response.setdefault("headers", {})["Voxport-Request"] = {"$ref": "#/components/headers/Voxport-Request"}
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _is_ours(response: dict[str, Any] | None) -> bool:
    return response is not None and MEDIA_TYPE in response["content"]


def _array_form() -> dict[str, Any]:
    """The fields of an array as those of a form, which has neither lists nor null."""
    fields = PredictFields.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    for name, field in fields.items():
        present = [kind for kind in field.pop("anyOf", ()) if kind.get("type") != "null"]
        fields[name] = {**field, **(present[0] if present else {})}
        fields[name].pop("default", None)
    fields["spacing"] = {"type": "string", "pattern": "^[0-9.]+,[0-9.]+,[0-9.]+$", "description": "X,Y,Z"}
    return {
        "type": "object",
        "description": "An array as a file, and what may be said of it.",
        "required": ["volume"],
        "properties": {"volume": {**binary("application/octet-stream")["schema"], "description": ".npy"}, **fields},
        "additionalProperties": False,
    }

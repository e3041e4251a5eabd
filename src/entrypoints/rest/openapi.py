"""The OpenAPI document: the problems of each route, keys, and examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ...contract.problem import KINDS, MEDIA_TYPE, ProblemDetails
from ...contract.service import ArrayBody, PredictFields
from .routing import JSON, MULTIPART

Responses = dict[int | str, dict[str, Any]]

TEXT = {"type": "string"}
VOLUME = "the file's content"
PROBE_KINDS = ("malformed", "forbidden", "limit", "media-type", "usage", "internal")
GUARDED_KINDS = (*PROBE_KINDS, "unauthorised", "rate")
RUN_KINDS = ("unknown-model", "usage", "not-installed", "input", "model", "busy", "cancelled", "timeout", "output")
_PROBES = ("/livez", "/readyz")
_GZIP = "application/gzip"
_RETRY = {"description": "Seconds until it is worth asking again.", "schema": {"type": "integer", "minimum": 1}}
_CHALLENGE = {"description": "How to send a key.", "required": True, "schema": {"type": "string"}}
_REQUEST_ID = {
    "description": "The id of this request, as in the log.",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}


def binary(media_type: str) -> dict[str, Any]:
    """A binary body of this media type."""
    return {"schema": {"type": "string", "contentMediaType": media_type}}


def problems(*kinds: str) -> Responses:
    """Responses with problems of these kinds."""
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


def examples(**values: dict[str, Any]) -> dict[str, Any]:
    """Examples by name, whose underscores become spaces in the summary."""
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}


def form(**values: dict[str, Any]) -> dict[str, Any]:
    """A form with examples by name."""
    return {"requestBody": {"required": True, "content": {MULTIPART: {"examples": examples(**values)}}}}


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
        # generators of clients send files only for this format
        body["properties"]["volume"]["items"] = {"type": "string", "format": "binary"}
    components["headers"] = {"Voxport-Request": _REQUEST_ID}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    keys: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    described = ((path, operation) for path, methods in document["paths"].items() for operation in methods.values())
    for path, operation in described:
        operation["security"] = [] if path in _PROBES or not needs_key else keys
        content = operation["responses"].get("200", {}).get("content", {})
        if JSON in content and _GZIP in content:  # generators of clients expect the first
            content[JSON] = content.pop(JSON)
        # FastAPI adds its own 422 to every route with parameters
        if MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", ()):
            operation["responses"].pop("422", None)
        for response in operation["responses"].values():
            for media in response.get("content", {}).values():
                media.pop("itemSchema", None)  # of OpenAPI 3.2
            response.setdefault("headers", {})["Voxport-Request"] = {"$ref": "#/components/headers/Voxport-Request"}
    return document


def _array_form() -> dict[str, Any]:
    """The schema of an array in a form, which has neither lists nor null."""
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

"""Problem details (RFC 9457): what the service answers in place of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"
URN = "urn:voxport:problem:"


class Kind(NamedTuple):
    """What all problems of a kind have in common: their HTTP status and title."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "malformed": Kind(400, "The request is not well formed"),
    "unauthorised": Kind(401, "A valid API key is needed"),
    "forbidden": Kind(403, "The service is not open to this caller"),
    "not-found": Kind(404, "There is nothing at this path"),
    "unknown-model": Kind(404, "There is no such model"),
    "unknown-job": Kind(404, "There is no such job"),
    "method": Kind(405, "The path does not take this method"),
    "not-acceptable": Kind(406, "The answer cannot take the form asked for"),
    "conflict": Kind(409, "The job is not in a state for this"),
    "limit": Kind(413, "A limit of the service is exceeded"),
    "media-type": Kind(415, "The body's media type is not taken"),
    "usage": Kind(422, "A field makes no sense"),
    "input": Kind(422, "The volume cannot be used"),
    "model": Kind(422, "The model cannot be used like this"),
    "rate": Kind(429, "Too many requests"),
    "internal": Kind(500, "The service failed"),
    "not-installed": Kind(501, "The service lacks a package"),
    "busy": Kind(503, "The service is busy"),
    "unavailable": Kind(503, "The job queue cannot be reached"),
    "cancelled": Kind(503, "The run was cancelled"),
    "timeout": Kind(504, "The run took longer than its limit"),
    "output": Kind(507, "The result could not be written"),
}


def not_null(schema: dict[str, Any]) -> None:
    """Describe a member that is left out where it is None."""
    (kind,) = (kind for kind in schema.pop("anyOf") if kind.get("type") != "null")
    schema.pop("default")
    schema.update(kind)


class ProblemDetails(BaseModel):
    """What is answered instead (RFC 9457); expected, got and do are there where there is something to do."""

    type: str = Field(json_schema_extra={"enum": [f"{URN}{kind}" for kind in KINDS]})
    title: str
    status: int
    detail: str = Field(description="One line: what was expected, what came, what to do.")
    instance: str = Field(description="The id of the request, as in the header Voxport-Request.", pattern="^urn:uuid:")
    expected: str | None = Field(default=None, json_schema_extra=not_null)
    got: str | None = Field(default=None, json_schema_extra=not_null)
    do: str | None = Field(default=None, json_schema_extra=not_null)

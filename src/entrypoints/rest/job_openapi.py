"""What the routes of jobs may answer."""

from __future__ import annotations

from ...contract.job import JobAnswer
from ...domain.report import Report, StatisticsReport
from .openapi import GUARDED_KINDS, RUN_KINDS, VOLUME, Responses, binary, form, problems

_QUEUE = (*GUARDED_KINDS, "unavailable")
_OWN = (*_QUEUE, "unknown-job")
_RESULT = (*_OWN, "conflict", "not-found")
_CSV, _PNG = "text/csv", "image/png"
_TEXT = {"type": "string"}
_ETAG = {"description": "The sha256 of the bytes, in quotes.", "schema": _TEXT}
_FILE = {"ETag": _ETAG, "Content-Disposition": {"description": "A name for the file.", "schema": _TEXT}}
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"const": "job"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"#/components/schemas/{JobAnswer.__name__}"},
        },
    },
}
_UNCHANGED: Responses = {304: {"description": "The caller has these bytes.", "headers": {"ETag": _ETAG}}}

JOB_BODY = form(
    by_the_default_model={"volume": [VOLUME]},
    with_probabilities={
        "volume": [VOLUME],
        "model": "two-photon-vessels",
        "outputs": ["mask", "probabilities"],
        "overlap": 0.25,
    },
)
JOB_SUBMITTED: Responses = {
    **problems(*_QUEUE, *RUN_KINDS),
    202: {
        "description": "The job is kept, and will be run.",
        "headers": {
            "Location": {"description": "Where to ask for it.", "required": True, "schema": _TEXT},
            "Idempotency-Replayed": {"description": "`true`: an earlier request made it.", "schema": _TEXT},
        },
    },
}
JOBS = problems(*_QUEUE, "usage")
JOB = problems(*_OWN)
JOB_CHANGED: Responses = {**problems(*_OWN, "conflict"), 202: {"description": "The job as it is now."}}
JOB_CANCELLED: Responses = {**problems(*_OWN), 202: {"description": "The job as it is now."}}
JOB_DELETED: Responses = {
    **problems(*_OWN, "conflict", "output"),
    202: {"description": "The job was queued or running, and is cancelled, or will be at its next tile."},
    204: {"description": "The job had ended, and its data is deleted."},
}
JOB_EVENTS: Responses = {
    **problems(*_OWN),
    200: {
        "description": "Server-sent events `job`, whose data is the job as `/v1/jobs/{id}` answers it.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    },
}


def result(media_type: str, *kinds: str) -> Responses:
    """The answers of a route that has one stored file."""
    stored = {"description": "The file.", "content": {media_type: binary(media_type)}, "headers": _FILE}
    return {**problems(*_RESULT, *kinds), 200: stored, **_UNCHANGED}


REPORT: Responses = {
    **problems(*_RESULT),
    200: {"description": "The report.", "model": Report, "headers": _FILE},
    **_UNCHANGED,
}
STATISTICS: Responses = {
    **problems(*_RESULT, "not-acceptable"),
    200: {
        "description": "Measures of each label.",
        "model": StatisticsReport,
        "content": {_CSV: binary(_CSV)},
        "headers": {**_FILE, "Vary": {"description": "`Accept`.", "schema": _TEXT}},
    },
    **_UNCHANGED,
}
PREVIEW = result(_PNG, "usage", "cancelled", "timeout", "output")

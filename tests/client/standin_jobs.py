"""The stand-in's queue. Time passes in it by being looked at: each look finds a job one step further."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

ENDED = ("done", "failed", "cancelled", "parked")
MEDIA_TYPES = {".gz": "application/gzip", ".json": "application/json", ".csv": "text/csv", ".png": "image/png"}
RESULTS = {
    "mask": "mask.nii.gz",
    "probabilities": "probabilities.nii.gz",
    "statistics": "statistics.json",
    "preview": "preview.png",
    "report": "report.json",
}
_BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)

Step = Mapping[str, Any]
WAITING: tuple[Step, ...] = ({"state": "queued", "position": 1}, {"state": "queued", "position": 0})
RUNNING: tuple[Step, ...] = tuple({"state": "running", "tiles": {"done": done, "total": 4}} for done in (0, 1, 3))
DONE: Step = {"state": "done", "tiles": {"done": 4, "total": 4}}


@dataclass
class Case:
    """What a job is of: its model, the files that it comes to, its volumes, and what makes it this case."""

    model: str
    files: Mapping[str, bytes]
    inputs: list[dict[str, str]]
    same: object


@dataclass
class StandinJob:
    """A job, the steps it has taken, and those to come."""

    id: str
    case: Case
    outputs: list[str]
    steps: list[Step]
    attempts: int = 0

    @property
    def state(self) -> str:
        return str(self.steps[0]["state"])

    def pass_time(self) -> None:
        """One step further, unless that was the last."""
        if len(self.steps) > 1:
            del self.steps[0]

    def told(self) -> dict[str, Any]:
        """The job as JSON."""
        ended = self.state in ENDED
        results = {
            output: {"href": f"/v1/jobs/{self.id}/{output}", "sha256": _sha256(self.case.files[RESULTS[output]])}
            for output in (self.outputs if self.state == "done" else ())
        }
        return {
            "id": self.id,
            "cancelling": False,
            "model": self.case.model,
            "inputs": self.case.inputs,
            "outputs": self.outputs,
            "submitted": _time(0),
            "started": None if self.state == "queued" else _time(1),
            "ended": _time(2) if ended else None,
            "position": None,
            "attempts": self.attempts,
            "tiles": {"done": 0, "total": 0},
            "eta_seconds": None if ended else 7.25,
            "expires": _time(3) if ended else None,
            "problem": None,
            "results": results,
            **self.steps[0],
        }


@dataclass
class StandinQueue:
    """All jobs, what becomes of new ones, and how often a stream breaks off after its first event."""

    ends: Step = field(default_factory=lambda: DONE)
    breaks: int = 0
    jobs: dict[str, StandinJob] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def submit(self, key: str | None, case: Case, outputs: list[str]) -> tuple[StandinJob, bool]:
        """A new job, or the one that the key made; and which of them. KeyError where that one is of another case."""
        if key is not None:
            self.seen.append(key)
        known = self.jobs.get(self.keys.get(key or "", ""))
        if known is not None and known.case.same != case.same:
            raise KeyError(key)
        if known is None:
            wanted = [name for name in RESULTS if name != "probabilities" or name in outputs]
            known = StandinJob(str(uuid.uuid4()), case, wanted, [*WAITING, *RUNNING, self.ends])
            self.jobs[known.id] = known
            self.keys |= {} if key is None else {key: known.id}
            return known, False
        return known, True

    def list(self, request: Request) -> Response:
        """The latest first."""
        states, limit = request.query_params.getlist("state"), int(request.query_params.get("limit", "100"))
        told = [job.told() for job in reversed(self.jobs.values()) if not states or job.state in states]
        return JSONResponse({"jobs": told[:limit]})

    def one(self, job: StandinJob) -> Response:
        """The job as it is, whereupon time passes."""
        told = job.told()
        job.pass_time()
        return JSONResponse(told)

    def events(self, job: StandinJob) -> Response:
        """Every step of it, from now to its end."""
        return StreamingResponse(self._stream(job), media_type="text/event-stream")

    async def _stream(self, job: StandinJob) -> AsyncIterator[str]:
        yield ": this is alive\n\n"
        for number in range(len(job.steps)):
            if number == 1 and self.breaks > 0:
                self.breaks -= 1
                raise ConnectionResetError
            yield f"event: job\ndata: {json.dumps(job.told())}\n\n"
            job.pass_time()

    def delete(self, job: StandinJob) -> Response:
        """Cancel it, or forget it."""
        if job.state in ENDED:
            del self.jobs[job.id]
            return Response(status_code=204)
        return self.cancel(job)

    def cancel(self, job: StandinJob) -> Response:
        """Stop it, unless it has ended."""
        if job.state not in ENDED:
            job.steps = [{"state": "cancelled"}]
        return JSONResponse(job.told(), 202)

    def retry(self, job: StandinJob) -> Response | None:
        """In line again; None where it is in no state for it."""
        if job.state not in ("failed", "cancelled", "parked"):
            return None
        job.steps = [*WAITING, *RUNNING, DONE]
        return JSONResponse(job.told(), 202)

    def result(self, job: StandinJob, name: str, accept: str) -> Response | None:
        """A stored file; None where it was not asked for."""
        output = name.removesuffix(".png")
        if output not in job.told()["results"]:
            return None
        member = "statistics.csv" if (output, accept) == ("statistics", "text/csv") else RESULTS[output]
        content = job.case.files[member]
        media_type = MEDIA_TYPES[member[member.rindex(".") :]]
        return Response(content, headers={"ETag": f'"{_sha256(content)}"'}, media_type=media_type)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _time(hours: int) -> str:
    return (_BEGAN + timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

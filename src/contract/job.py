"""A job as the service answers for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from ..domain.job import Job, JobState
from ..domain.plain import iso_time, one_line
from ..domain.report import FileReport
from ..domain.run import OutputName
from ..domain.volume_names import USUAL_FORMAT, MaskFormat
from .card import MODEL_NAME, MODEL_VERSION
from .problem import KINDS, URN

# A failure of jobs alone.
_WORKER_LOST = "worker-lost"
_TITLES = {**{kind: known.title for kind, known in KINDS.items()}, _WORKER_LOST: "The worker was lost"}
PATHS: dict[OutputName, str] = {
    "mask": "mask",
    "probabilities": "probabilities",
    "uncertainty": "uncertainty",
    "statistics": "statistics",
    "preview": "preview.png",
    "report": "report",
}
Time = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class JobTiles(BaseModel):
    """Tiles of this attempt; the total is 0 until it is known."""

    done: Count
    total: Count


class JobProblem(BaseModel):
    """Why the last run failed."""

    type: str = Field(json_schema_extra={"enum": [f"{URN}{kind}" for kind in _TITLES]})
    title: str
    detail: str


class JobResult(BaseModel):
    """A stored result."""

    href: str
    sha256: Sha256


class JobAnswer(BaseModel):
    """A segmentation that waits, runs, or has ended. Times are UTC."""

    id: str = Field(pattern="^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$")
    state: JobState
    cancelling: bool = Field(description="It runs, and stops at its next tile.")
    model: str = Field(description="NAME:VERSION", pattern=f"^{MODEL_NAME}:{MODEL_VERSION}$")
    inputs: list[FileReport] = Field(min_length=1, max_length=1000)
    outputs: list[OutputName]
    format: MaskFormat = Field(USUAL_FORMAT, description="Of the mask.")
    submitted: Time
    started: Time | None
    ended: Time | None
    position: Count | None = Field(description="0 for the next job; null unless it is queued.")
    attempts: Count = Field(description="Number of runs that began.")
    tiles: JobTiles
    eta_seconds: Seconds | None = Field(description="Until it ends; null where it has, or nothing is known.")
    expires: Time | None = Field(description="When its data will be deleted.")
    problem: JobProblem | None = Field(description="Why the last run failed.")
    results: dict[OutputName, JobResult] = Field(description="By output; none until it is done.")


class JobsAnswer(BaseModel):
    """Jobs of the caller, the latest first."""

    jobs: list[JobAnswer]


def job_mapping(
    job: Job, eta_seconds: float | None, *, retention_seconds: float, public: Callable[[str], str], prefix: str = ""
) -> dict[str, Any]:
    """A job as plain data.

    Args:
        job: as the queue has it.
        eta_seconds: until it ends.
        retention_seconds: how long it is kept then.
        public: takes the server's folders out of a text.
        prefix: path before those of the service, where a proxy adds one.
    """
    case, failure = job.case, job.failure
    return {
        "id": job.id,
        "state": job.state,
        "cancelling": job.cancelling,
        "model": case.model,
        "inputs": [{"name": file.name, "sha256": file.sha256} for file in case.inputs],
        "outputs": list(case.outputs),
        "format": case.mask_format,
        "submitted": iso_time(job.submitted),
        "started": iso_time(job.started),
        "ended": iso_time(job.ended),
        "position": job.position,
        "attempts": job.attempts,
        "tiles": {"done": job.tiles_done, "total": job.tiles_total},
        "eta_seconds": None if eta_seconds is None else round(eta_seconds, 3),
        "expires": None if job.ended is None else iso_time(job.ended + retention_seconds),
        "problem": None if failure is None else _problem(failure.kind, one_line(public(failure.detail))),
        "results": {
            output: {"href": f"{prefix}{job_path(job)}/{path}", "sha256": job.results[output].sha256}
            for output, path in PATHS.items()
            if output in job.results
        },
    }


def job_path(job: Job) -> str:
    """Where the job is answered for."""
    return f"/v1/jobs/{job.id}"


def _problem(kind: str, detail: str) -> dict[str, str]:
    known = kind if kind in _TITLES else "internal"
    return {"type": f"{URN}{known}", "title": _TITLES[known], "detail": detail}

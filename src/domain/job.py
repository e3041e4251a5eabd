"""A segmentation that waits in a queue: its states, what may follow what, and what becomes of it when a run fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from .errors import (
    BusyError,
    CancelledError,
    NoSpaceError,
    OutputError,
    UnknownJobError,
    UnknownModelError,
    UsageError,
    VoxportError,
    kind_of,
)

JobState = Literal["queued", "running", "done", "failed", "cancelled", "parked"]
JOB_STATES: tuple[JobState, ...] = ("queued", "running", "done", "failed", "cancelled", "parked")
ENDED: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "parked"})
FOLLOWING: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        "queued": frozenset({"running", "cancelled"}),
        "running": frozenset({"queued", "done", "failed", "cancelled", "parked"}),
        "done": frozenset(),
        "failed": frozenset({"queued"}),
        "cancelled": frozenset({"queued"}),
        "parked": frozenset({"queued"}),
    }
)
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class StoredFile:
    """A file in the blob store: what people call it, the blob's name, and the sha256 of its bytes."""

    name: str
    blob: str
    sha256: str


@dataclass(frozen=True)
class JobCase:
    """What to segment and how.

    Args:
        folder: prefix of all blobs of this case, its own; deleted with the job.
        inputs: the volumes whose channels make up the case, in order.
        model: reference of the model, ``name:version``.
        options: the run's options as plain data.
        outputs: the results wanted, the mask among them.
        model_sha256: of the model's file when the case was put into the queue; any where empty.
        estimate_seconds: what the run was foretold to take, if it was.
    """

    folder: str
    inputs: tuple[StoredFile, ...]
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("mask",)
    model_sha256: str = ""
    estimate_seconds: float | None = None

    def same_work(self, other: JobCase) -> bool:
        """Whether the same bytes are to be segmented in the same way, by the model of the same name."""
        ours, theirs = (
            ([(f.name, f.sha256) for f in case.inputs], case.model, dict(case.options), case.outputs)
            for case in (self, other)
        )
        return ours == theirs


@dataclass(frozen=True)
class JobFailure:
    """Why a run failed: a kind for programs, and one line for people."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Job:
    """A case in the queue. Times are seconds since 1970, UTC.

    ``attempts`` counts how often it was begun, and tells one run of it from the next. ``strikes`` counts the runs
    that ended without an explanation or took their worker with them. ``position`` is 0 for the next in line, and
    None unless the job is queued. ``cancelling``: it is running and will stop at its next tile. ``failure`` is the
    last run's, also while the job waits to be tried again.
    """

    id: str
    owner: str
    case: JobCase
    submitted: float
    state: JobState = "queued"
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    strikes: int = 0
    tiles_done: int = 0
    tiles_total: int = 0
    position: int | None = None
    cancelling: bool = False
    failure: JobFailure | None = None
    results: Mapping[str, StoredFile] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it by itself any more."""
        return self.state in ENDED

    def held_by(self, attempt: int) -> bool:
        """Whether this attempt is the one that runs it now."""
        return self.state == "running" and self.attempts == attempt

    def to(self, state: JobState, **changes: Any) -> Job:
        """The job in another state. ValueError where that state cannot follow."""
        if state not in FOLLOWING[self.state]:
            raise ValueError(f"job {self.id}: {state} cannot follow {self.state}")
        return replace(self, state=state, position=None, cancelling=False, **changes)


def begun(job: Job, now: float) -> Job:
    """A queued job that a worker takes up."""
    return job.to("running", started=now, attempts=job.attempts + 1, tiles_done=0)


def finished(job: Job, now: float, results: Mapping[str, StoredFile]) -> Job:
    """A running job whose results are stored; one that was to be cancelled is done all the same."""
    return job.to("done", ended=now, results=dict(results), failure=None, tiles_done=job.tiles_total)


def asked_to_cancel(job: Job, now: float) -> Job:
    """The job after a request to cancel it: at once if it waits, at its next tile if it runs; else unchanged."""
    if job.state == "queued":
        return job.to("cancelled", ended=now)
    return replace(job, cancelling=True) if job.state == "running" else job


def tried_again(job: Job) -> Job:
    """A job that failed, was cancelled or set aside, in the queue again. Raises UsageError for any other."""
    if "queued" not in FOLLOWING[job.state] or job.state == "running":
        expected = "a job that failed, was cancelled or was set aside"
        raise UsageError(f"job {job.id}", expected=expected, got=f"one that is {job.state}", do="leave it alone")
    return job.to("queued", ended=None, strikes=0, failure=None, tiles_done=0)


def settled(job: Job, now: float, error: BaseException, *, strikes_allowed: int) -> Job:
    """A running job after its run raised ``error``.

    What the case itself is to blame for fails at once. What the surroundings are to blame for, such as a full disk,
    is tried again for as long as it takes. Anything else counts as a strike, and enough of them set the job aside:
    also a model that this worker has not, as another one may.
    """
    if job.cancelling:
        return job.to("cancelled", ended=now)
    if isinstance(error, CancelledError):  # the worker was told to stop
        return job.to("queued", tiles_done=0)
    failure = failure_of(error)
    if isinstance(error, OutputError | NoSpaceError | BusyError | OSError):
        return job.to("queued", failure=failure, tiles_done=0)
    if isinstance(error, VoxportError) and not isinstance(error, UnknownModelError):
        return job.to("failed", ended=now, failure=failure)
    return _struck(job, now, failure, strikes_allowed)


def abandoned(job: Job, now: float, *, strikes_allowed: int) -> Job:
    """A running job whose worker is gone."""
    if job.cancelling:
        return job.to("cancelled", ended=now)
    detail = f"the worker was lost while it ran this job (attempt {job.attempts})"
    return _struck(job, now, JobFailure("worker-lost", detail), strikes_allowed)


def _struck(job: Job, now: float, failure: JobFailure, strikes_allowed: int) -> Job:
    strikes = job.strikes + 1
    if strikes >= strikes_allowed:
        return job.to("parked", ended=now, strikes=strikes, failure=failure)
    return job.to("queued", strikes=strikes, failure=failure, tiles_done=0)


def failure_of(error: BaseException) -> JobFailure:
    """An exception for the job's owner; what is no VoxportError keeps its words to itself."""
    if isinstance(error, VoxportError):
        return JobFailure(kind_of(error), str(error))
    if isinstance(error, OSError):
        return JobFailure("output", f"the system refused: {(error.strerror or type(error).__name__).lower()}")
    return JobFailure("internal", f"an unexpected {type(error).__name__}; the worker's log has it under this job's id")


def wait_seconds(attempts: int, backoff_seconds: float) -> float:
    """How long a job waits before it is tried again after so many attempts: twice as long each time, to a minute."""
    return float(min(backoff_seconds * 2.0 ** min(max(attempts, 1) - 1, 10), _LONGEST_WAIT_SECONDS))


def eta_seconds(job: Job, now: float, *, typical_seconds: float | None, concurrency: int) -> float | None:
    """Seconds until the job ends: from the tiles done so far, else from what was foretold for it.

    None if it has ended, and where nothing is known yet.

    Args:
        job: with its position, if it is queued.
        now: seconds since 1970.
        typical_seconds: what a job takes; None where none is done yet.
        concurrency: how many jobs run at a time, on all workers together.
    """
    own = typical_seconds if job.case.estimate_seconds is None else job.case.estimate_seconds
    if job.has_ended or own is None:
        return None
    if job.state == "queued":
        before = own if typical_seconds is None else typical_seconds
        return (job.position or 0) // max(1, concurrency) * before + own
    passed = max(0.0, now - (now if job.started is None else job.started))
    if job.tiles_done and job.tiles_total:
        return passed * (job.tiles_total - job.tiles_done) / job.tiles_done
    return max(0.0, own - passed)


def unknown_job(id: str) -> UnknownJobError:
    """The error for an id that is not a job's, or not one of the caller's."""
    return UnknownJobError(f"job {id[:80]}", expected="one of your jobs", got="another id", do="list your jobs")


def not_ended(job: Job) -> UsageError:
    """The error for a job that is to be forgotten too early."""
    return UsageError(
        f"job {job.id}", expected="one that has ended", got=f"one that is {job.state}", do="cancel it first"
    )


def key_taken(key: str) -> UsageError:
    """The error for a request's key that comes again with another case."""
    return UsageError(f"key {key[:80]}", expected="the case that it was used for", got="another", do="take a new key")


def typical_seconds(jobs: Iterable[Job]) -> float | None:
    """How long one of these jobs took that are done, the median; None where none is."""
    return median_seconds((job.started, job.ended) for job in jobs if job.state == "done")


def median_seconds(times: Iterable[tuple[float | None, float | None]]) -> float | None:
    """The median time between these beginnings and ends, more than 0; None where there are none."""
    taken = sorted(end - start for start, end in times if start is not None and end is not None)
    return max(taken[len(taken) // 2], 0.001) if taken else None


def case_mapping(case: JobCase) -> dict[str, Any]:
    """A case as plain data."""
    return {
        "folder": case.folder,
        "inputs": [_file_mapping(file) for file in case.inputs],
        "model": case.model,
        "options": dict(case.options),
        "outputs": list(case.outputs),
        "model_sha256": case.model_sha256,
        "estimate_seconds": case.estimate_seconds,
    }


def read_case(data: Mapping[str, Any]) -> JobCase:
    """A case from what ``case_mapping`` gave."""
    inputs = tuple(StoredFile(**file) for file in data["inputs"])
    plain = {name: value for name, value in data.items() if name not in ("inputs", "options", "outputs")}
    return JobCase(inputs=inputs, options=dict(data["options"]), outputs=tuple(data["outputs"]), **plain)


def results_mapping(results: Mapping[str, StoredFile]) -> dict[str, Any]:
    """Results as plain data."""
    return {output: _file_mapping(file) for output, file in results.items()}


def read_results(data: Mapping[str, Any]) -> dict[str, StoredFile]:
    """Results from what ``results_mapping`` gave."""
    return {output: StoredFile(**file) for output, file in data.items()}


def _file_mapping(file: StoredFile) -> dict[str, str]:
    return {"name": file.name, "blob": file.blob, "sha256": file.sha256}

"""Jobs: segmentations in a queue, their states and transitions, and what follows a failed run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from .errors import (
    BusyError,
    CancelledError,
    FormatError,
    NoSpaceError,
    OutputError,
    UnknownJobError,
    UnknownModelError,
    UsageError,
    VoxportError,
    kind_of,
)
from .volume_names import USUAL_FORMAT, MaskFormat

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
    """A file in the blob store: its name for people, the blob's name, and its sha256."""

    name: str
    blob: str
    sha256: str


@dataclass(frozen=True)
class JobCase:
    """What to segment, and how.

    Args:
        folder: prefix of all blobs of this case alone; deleted with the job.
        inputs: the volumes whose channels make up the case, in order.
        model: reference of the model, ``name:version``.
        options: the run's options as plain data.
        outputs: the results wanted, the mask among them.
        model_sha256: of the model's file at submission; empty accepts any.
        estimate_seconds: estimated run time, if it was estimated.
        mask_format: format of the mask.
    """

    folder: str
    inputs: tuple[StoredFile, ...]
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("mask",)
    model_sha256: str = ""
    estimate_seconds: float | None = None
    mask_format: MaskFormat = USUAL_FORMAT

    def same_work(self, other: JobCase) -> bool:
        """Whether both cases name the same bytes, model, options, outputs and format."""
        ours, theirs = (
            ([(f.name, f.sha256) for f in case.inputs], case.model, dict(case.options), case.outputs, case.mask_format)
            for case in (self, other)
        )
        return ours == theirs


@dataclass(frozen=True)
class JobFailure:
    """Why a run failed: a kind for programs, a line for people."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Job:
    """A case in the queue. Times are seconds since 1970, UTC.

    ``attempts`` counts runs and numbers them. ``failed_attempts`` counts runs that ended without an explanation or
    with the loss of their worker. ``position`` is 0 for the next job, and None unless the job is queued.
    ``cancelling``: it is running and will stop at its next tile. ``failure`` is the last run's, also while the job
    waits for its next run.
    """

    id: str
    owner: str
    case: JobCase
    submitted: float
    state: JobState = "queued"
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    failed_attempts: int = 0
    tiles_done: int = 0
    tiles_total: int = 0
    position: int | None = None
    cancelling: bool = False
    failure: JobFailure | None = None
    results: Mapping[str, StoredFile] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether the job is in a final state."""
        return self.state in ENDED

    def held_by(self, attempt: int) -> bool:
        """Whether this attempt runs the job now."""
        return self.state == "running" and self.attempts == attempt

    def to(self, state: JobState, **changes: Any) -> Job:
        """The job in another state. Raises ValueError for a state that cannot follow."""
        if state not in FOLLOWING[self.state]:
            raise ValueError(f"job {self.id}: {state} cannot follow {self.state}")
        return replace(self, state=state, position=None, cancelling=False, **changes)


def begun(job: Job, now: float) -> Job:
    """A queued job after a worker has begun it."""
    return job.to("running", started=now, attempts=job.attempts + 1, tiles_done=0)


def finished(job: Job, now: float, results: Mapping[str, StoredFile]) -> Job:
    """A running job after its results were stored, even if it was being cancelled."""
    return job.to("done", ended=now, results=dict(results), failure=None, tiles_done=job.tiles_total)


def asked_to_cancel(job: Job, now: float) -> Job:
    """The job after a request to cancel: cancelled if queued, cancelling if running, else unchanged."""
    if job.state == "queued":
        return job.to("cancelled", ended=now)
    return replace(job, cancelling=True) if job.state == "running" else job


def tried_again(job: Job) -> Job:
    """A failed, cancelled or dead-lettered job, queued again. Raises UsageError for any other."""
    if "queued" not in FOLLOWING[job.state] or job.state == "running":
        expected = "a job that failed, was cancelled or was dead-lettered"
        raise UsageError(f"job {job.id}", expected=expected, got=f"one that is {job.state}", do="leave it alone")
    return job.to("queued", ended=None, failed_attempts=0, failure=None, tiles_done=0)


def settled(job: Job, now: float, error: BaseException, *, attempts_allowed: int) -> Job:
    """A running job after its run raised ``error``.

    Errors of the case fail the job at once. Errors of the surroundings, such as a full disk, queue it again without
    limit. Any other error counts as a failed attempt; ``attempts_allowed`` of them dead-letter the job. A model that
    this worker lacks counts too, as another worker may have it.
    """
    if job.cancelling:
        return job.to("cancelled", ended=now)
    if isinstance(error, CancelledError):  # the worker stops
        return job.to("queued", tiles_done=0)
    failure = failure_of(error)
    passing = isinstance(error, OutputError | NoSpaceError | BusyError | OSError)
    if passing and not isinstance(error, FormatError):
        return job.to("queued", failure=failure, tiles_done=0)
    if isinstance(error, VoxportError) and not isinstance(error, UnknownModelError):
        return job.to("failed", ended=now, failure=failure)
    return _after_failed_attempt(job, now, failure, attempts_allowed)


def abandoned(job: Job, now: float, *, attempts_allowed: int) -> Job:
    """A running job after its worker was lost."""
    if job.cancelling:
        return job.to("cancelled", ended=now)
    detail = f"the worker was lost while it ran this job (attempt {job.attempts})"
    return _after_failed_attempt(job, now, JobFailure("worker-lost", detail), attempts_allowed)


def _after_failed_attempt(job: Job, now: float, failure: JobFailure, attempts_allowed: int) -> Job:
    failed = job.failed_attempts + 1
    if failed >= attempts_allowed:
        return job.to("parked", ended=now, failed_attempts=failed, failure=failure)
    return job.to("queued", failed_attempts=failed, failure=failure, tiles_done=0)


def failure_of(error: BaseException) -> JobFailure:
    """An exception as the job's owner sees it; of one that is no VoxportError, only the type."""
    if isinstance(error, VoxportError):
        return JobFailure(kind_of(error), str(error))
    if isinstance(error, OSError):
        return JobFailure("output", f"the system refused: {(error.strerror or type(error).__name__).lower()}")
    return JobFailure("internal", f"an unexpected {type(error).__name__}; the worker's log has it under this job's id")


def wait_seconds(attempts: int, backoff_seconds: float) -> float:
    """Wait before the next run after ``attempts`` runs: doubled each time, at most 60 s."""
    return float(min(backoff_seconds * 2.0 ** min(max(attempts, 1) - 1, 10), _LONGEST_WAIT_SECONDS))


def eta_seconds(job: Job, now: float, *, typical_seconds: float | None, concurrency: int) -> float | None:
    """Return the seconds until a job ends, from its tiles done, else from its estimate; None if ended or unknown.

    ``typical_seconds`` is the median time of a job, ``concurrency`` the number of jobs that all workers run at a time.
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
    """The error for an id that no job of the caller has."""
    return UnknownJobError(f"job {id[:80]}", expected="one of your jobs", got="another id", do="list your jobs")


def not_ended(job: Job) -> UsageError:
    """The error for deleting a job that has not ended."""
    return UsageError(
        f"job {job.id}", expected="one that has ended", got=f"one that is {job.state}", do="cancel it first"
    )


def key_taken(key: str) -> UsageError:
    """The error for a request key that was used for another case."""
    return UsageError(f"key {key[:80]}", expected="the case that it was used for", got="another", do="take a new key")


def median_seconds(times: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Median of end - start, at least 0.001 s; None without a pair."""
    taken = sorted(end - start for start, end in times if start is not None and end is not None)
    return max(taken[len(taken) // 2], 0.001) if taken else None


def read_case(data: Mapping[str, Any]) -> JobCase:
    """Build a case from plain data, as ``plain`` gives it."""
    inputs = tuple(StoredFile(**file) for file in data["inputs"])
    return JobCase(**{**data, "inputs": inputs, "outputs": tuple(data["outputs"])})


def results_mapping(results: Mapping[str, StoredFile]) -> dict[str, Any]:
    """Return results as plain data. Raises AttributeError for a result that is no stored file."""
    return {output: {"name": f.name, "blob": f.blob, "sha256": f.sha256} for output, f in results.items()}


def read_results(data: Mapping[str, Any]) -> dict[str, StoredFile]:
    """Build results from plain data."""
    return {output: StoredFile(**file) for output, file in data.items()}

"""A job as the server tells of it, checked before it is believed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from ..domain.errors import CancelledError, UsageError, VoxportError
from ..domain.job import ENDED, JOB_STATES, JobFailure, JobState
from .answers import malformed
from .archive import MEMBERS
from .errors import RemoteError, one_line
from .fields import model_folder
from .problems import URN, problem_error
from .sent import Sent, localised

JOBS = "/v1/jobs"
_ID = re.compile("[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_SHA256 = re.compile("[0-9a-f]{64}")
_MOST = 2**53
_MOST_INPUTS = 1000


@dataclass(frozen=True)
class JobInput:
    """A volume of a job: its name, and the sha256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class RemoteJob:
    """Snapshot of a job of a server. Times are in UTC.

    Attributes:
        id: identifies it in all methods.
        state: queued, running, done, failed, cancelled, or parked (dead-lettered).
        cancelling: running, and will stop at its next tile.
        model: ``NAME:VERSION``.
        inputs: the volumes, with local names if submitted or waited for here.
        outputs: requested results.
        submitted: time of acceptance.
        started: time of the last start.
        ended: time of the end, or None.
        expires: time of deletion, or None before the end.
        position: position in the queue; None unless queued.
        attempts: number of starts.
        tiles_done: finished tiles of this attempt.
        tiles_total: all tiles; 0 until known.
        eta_seconds: estimated seconds until the end, or None.
        failure: error of the last run, also while the job waits for a retry.
        results: sha256 of each result; empty until done.
        volumes: local files; empty if the job is known by its id only.
    """

    id: str
    state: JobState
    cancelling: bool
    model: str
    inputs: tuple[JobInput, ...]
    outputs: tuple[str, ...]
    submitted: datetime
    started: datetime | None
    ended: datetime | None
    expires: datetime | None
    position: int | None
    attempts: int
    tiles_done: int
    tiles_total: int
    eta_seconds: float | None
    failure: JobFailure | None
    results: Mapping[str, str] = field(hash=False)
    volumes: tuple[Path, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it by itself any more."""
        return self.state in ENDED

    @property
    def error(self) -> VoxportError | None:
        """Why there is no result of a job that ended, as a run on this machine would say it; None of any other."""
        if self.state == "cancelled":
            return CancelledError()
        if self.state not in ("failed", "parked"):
            return None
        if self.failure is None:
            got, do = f"one that {self.state} for no reason that was told", "ask who runs the server"
            return RemoteError(f"job {self.id}", expected="one that is done", got=got, do=do)
        return problem_error({"type": URN + self.failure.kind, "detail": self.failure.detail}, f"job {self.id}")

    @property
    def sent(self) -> Sent:
        """Its volumes, by which results are checked."""
        return Sent(tuple(i.name for i in self.inputs), tuple(i.sha256 for i in self.inputs))


def job_id(job: RemoteJob | str) -> str:
    """The id of a job, fit for a path. Raises UsageError."""
    id = job.id if isinstance(job, RemoteJob) else job
    if not _ID.fullmatch(id):
        raise UsageError("job", expected="the id of a job", got=one_line(id) or "nothing", do="list your jobs")
    return id


def job_path(id: str) -> str:
    """Where a job is on a server."""
    return f"{JOBS}/{id}"


def remote_job(data: object, url: str, volumes: Sequence[Path] = (), id: str | None = None) -> RemoteJob:
    """A job from what the server says of it.

    Args:
        data: what came.
        url: the server.
        volumes: the job's, as they are called here; the server's names stay where there are none.
        id: the job's, where it is known.

    Raises:
        RemoteError: a part is missing, of the wrong kind, or another job's.
    """
    try:
        job = _read(data, tuple(volumes))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise malformed(url, "a job", error) from None
    if id not in (None, job.id):
        raise RemoteError.wrong_answer(url, expected=f"job {id}", got=f"job {job.id}")
    return job


def _read(data: Any, volumes: tuple[Path, ...]) -> RemoteJob:
    state, tiles, names = data["state"], data["tiles"], [str(path) for path in volumes]
    if state not in JOB_STATES or model_folder(data["model"]) is None or not _ID.fullmatch(data["id"]):
        raise ValueError("a state, a model or an id that there is not")
    results = {name: _sha256(data["results"][name]["sha256"]) for name in MEMBERS if name in data["results"]}
    if state == "done" and not {"mask", "report"} <= set(results):
        raise ValueError("a job that is done has a mask and a report")
    return RemoteJob(
        id=data["id"],
        state=state,
        cancelling=_truth(data["cancelling"]),
        model=data["model"],
        inputs=_inputs(data["inputs"], names),
        outputs=tuple(name for name in MEMBERS if name in _list(data["outputs"])),
        submitted=_time(data["submitted"]),
        started=_time_or_none(data["started"]),
        ended=_time_or_none(data["ended"]),
        expires=_time_or_none(data["expires"]),
        position=None if data["position"] is None else _whole(data["position"]),
        attempts=_whole(data["attempts"]),
        tiles_done=_whole(tiles["done"]),
        tiles_total=_whole(tiles["total"]),
        eta_seconds=None if data["eta_seconds"] is None else _seconds(data["eta_seconds"]),
        failure=_failure(data["problem"], names),
        results=results,
        volumes=volumes,
    )


def _inputs(listed: Any, names: Sequence[str]) -> tuple[JobInput, ...]:
    if not 0 < len(_list(listed)) <= _MOST_INPUTS or (names and len(names) != len(listed)):
        raise ValueError("another number of volumes")
    told = names or [one_line(entry["name"]) for entry in listed]
    return tuple(JobInput(name, _sha256(entry["sha256"])) for name, entry in zip(told, listed, strict=True))


def _failure(problem: Any, names: Sequence[str]) -> JobFailure | None:
    if problem is None:
        return None
    detail = one_line(problem["detail"] or problem["title"])
    return JobFailure(one_line(problem["type"]).removeprefix(URN), localised(detail, names))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError("a whole number is needed")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value >= 0):
        raise ValueError("a number of seconds is needed")
    return float(value)


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("a sha256 is needed")
    return value


def _time(value: Any) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time with its zone is needed")
    return time.astimezone(UTC)


def _time_or_none(value: Any) -> datetime | None:
    return None if value is None else _time(value)

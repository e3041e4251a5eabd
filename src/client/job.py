"""A job and its results, as a server answers for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..contract.job import JobAnswer
from ..contract.problem import URN
from ..domain.errors import CancelledError, UsageError, VoxportError
from ..domain.job import ENDED, JobFailure, JobState
from ..domain.run import RESULT_FILES, STATISTICS_TABLE
from .answers import JSON, MEMBERS, checked, json_object
from .downloads import spool
from .errors import RemoteError, one_line, problem_error
from .uploads import OnProgress, Sent, localised

if TYPE_CHECKING:
    import httpx

    from .connection import Connection

JOBS = "/v1/jobs"
_ID = re.compile("[0-9A-Za-z][0-9A-Za-z_-]{0,99}")


@dataclass(frozen=True)
class JobInput:
    """A volume of a job: its name, and the sha256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class RemoteJob:
    """A job of a server, as it was when the server was asked. Times are in UTC.

    Attributes:
        id: names it, here and on the server.
        state: queued, running, done, failed, cancelled, or parked: set aside after it was tried too often.
        cancelling: it is running and will stop at its next tile.
        model: ``NAME:VERSION`` of what scores.
        inputs: the volumes, under the names that they have here where this job was submitted or waited for from here.
        outputs: the results that there will be: mask, statistics and so on.
        submitted: when the server took it.
        started: when it was last begun.
        ended: when it ended.
        expires: when the server will delete it; None until it ended.
        position: how many jobs are before it in the queue; None unless it waits there.
        attempts: how often it was begun.
        tiles_done: of this attempt.
        tiles_total: of the job; 0 until that is known.
        eta_seconds: until it ends, from when the server was asked; None where nothing is known.
        failure: why the last run failed, also while the job waits to be tried again.
        results: sha256 of each result, by output; none until it is done.
        volumes: the files that were sent; none where the job is known by its id alone.
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
            got, do = f"one that {self.state} for no reason given", "ask who runs the server"
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


def _known(data: object) -> object:
    """Return the answer without the outputs that a later version of the server may add."""
    if not isinstance(data, Mapping):
        return data
    kept = dict(data)
    if isinstance(data.get("outputs"), list):
        kept["outputs"] = [name for name in data["outputs"] if name in MEMBERS]
    if isinstance(data.get("results"), Mapping):
        kept["results"] = {name: result for name, result in data["results"].items() if name in MEMBERS}
    return kept


def job_path(id: str) -> str:
    """Where a job is on a server."""
    return f"{JOBS}/{id}"


def remote_job(data: object, url: str, volumes: Sequence[Path] = (), id: str | None = None) -> RemoteJob:
    """Return a job from the server's answer.

    Args:
        data: the answer.
        url: the server.
        volumes: the job's volumes on this machine; without any, the server's names stay.
        id: the job's, if it is known.

    Raises:
        RemoteError: a part is missing or wrong, or the job is another.
    """
    names = [str(path) for path in volumes]
    job = checked(JobAnswer, _known(data), url, "a job")
    if id not in (None, job.id):
        raise RemoteError.wrong_answer(url, expected=f"job {id}", got=f"job {job.id}")
    if job.state == "done" and not {"mask", "report"} <= set(job.results):
        raise RemoteError.wrong_answer(url, expected="a job with its mask and report", got="one without")
    if names and len(names) != len(job.inputs):
        expected = f"a job of {len(names)} volumes"
        raise RemoteError.wrong_answer(url, expected=expected, got=f"one of {len(job.inputs)}")
    names = names or [one_line(file.name) for file in job.inputs]
    failure = None
    if job.problem is not None:
        detail = localised(one_line(job.problem.detail or job.problem.title), names)
        failure = JobFailure(one_line(job.problem.type).removeprefix(URN), detail)
    return RemoteJob(
        id=job.id,
        state=job.state,
        cancelling=job.cancelling,
        model=job.model,
        inputs=tuple(JobInput(name, file.sha256) for name, file in zip(names, job.inputs, strict=True)),
        outputs=tuple(name for name in MEMBERS if name in job.outputs),
        submitted=job.submitted,
        started=job.started,
        ended=job.ended,
        expires=job.expires,
        position=job.position,
        attempts=job.attempts,
        tiles_done=job.tiles.done,
        tiles_total=job.tiles.total,
        eta_seconds=job.eta_seconds,
        failure=failure,
        results={name: result.sha256 for name, result in job.results.items()},
        volumes=tuple(volumes),
    )


_LARGEST_JSON_BYTES = 2**26
_CHUNK_BYTES = 2**20
_GZIP = "application/gzip"


class _Route(NamedTuple):
    """Where a member is: the job's output, the last part of the path, and the media type."""

    output: str
    name: str
    media_type: str


_ROUTES = {
    RESULT_FILES["mask"]: _Route("mask", "mask", _GZIP),
    RESULT_FILES["probabilities"]: _Route("probabilities", "probabilities", _GZIP),
    RESULT_FILES["statistics"]: _Route("statistics", "statistics", JSON),
    STATISTICS_TABLE: _Route("statistics", "statistics", "text/csv"),
    RESULT_FILES["preview"]: _Route("preview", "preview.png", "image/png"),
    RESULT_FILES["report"]: _Route("report", "report", JSON),
}
# the same results in another form: the job has no hash of these, their ETag is it
_BY_ETAG = frozenset({STATISTICS_TABLE})


@dataclass(frozen=True)
class JobFiles:
    """See ``Members``: the results of a job that is done.

    Args:
        connection: to the server.
        path: the job's.
        job: with the hashes of its results.
        folder: where files are until they have been checked.
        on_progress: receives the bytes of each file.
    """

    connection: Connection
    path: str
    job: RemoteJob
    folder: Path
    on_progress: OnProgress

    @property
    def url(self) -> str:
        """See ``Members``."""
        return self.connection.url

    def json(self, member: str) -> dict[str, Any]:
        """See ``Members``."""
        with self.open(member) as file:
            body = file.read(_LARGEST_JSON_BYTES + 1)
        if len(body) > _LARGEST_JSON_BYTES:
            raise RemoteError.wrong_answer(self.url, expected=f"a {member}", got="one too large to be one")
        return json_object(body, self.url)

    @contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """See ``Members``."""
        route = _ROUTES[member]
        with spool(self.folder) as file:
            with self.connection.answer("GET", f"{self.path}/{route.name}", route.media_type) as answer:
                due = _etag(answer) if member in _BY_ETAG else self.job.results[route.output]
                self.connection.save(answer, file, lambda done, total: self.on_progress("download", done, total))
            file.seek(0)
            if _hash_of(file) != due:
                got = "one with another sha256 than the job's"
                do = "download it again, and tell who runs the server"
                raise RemoteError(self.url, expected=f"the {route.output} of job {self.job.id}", got=got, do=do)
            file.seek(0)
            yield file


def _hash_of(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _etag(answer: httpx.Response) -> str:
    """The hash in an ETag, which a proxy may have made a weak one."""
    return str(answer.headers.get("ETag", "")).removeprefix("W/").strip('"')

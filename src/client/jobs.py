"""A server's queue: cases that are submitted now and fetched later, by whoever knows their ids."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlencode

from ..domain.errors import UsageError
from ..domain.job import JOB_STATES
from ..domain.run import RemoteOptions
from .answers import JSON
from .archive import asked_outputs, member_of
from .downloads import check_destinations, check_outputs, commit_all
from .errors import LostAnswerError, RemoteError, UnreachableError
from .fields import Fields, checked_request_key, fields_of
from .following import Clock, Follower, HearJob
from .job import JOBS, RemoteJob, job_id, job_path, remote_job
from .job_files import JobFiles
from .results import received
from .uploads import Hear, StrPath, Uploads, Volumes, paths_of, silent

if TYPE_CHECKING:
    from .connection import Connection

_LONGEST_LIST = 1000


def unheard(job: RemoteJob) -> None:
    """Say nothing of how a job goes on."""


class Jobs:
    """The jobs of a server that belong to the client's key: ``Client.jobs``.

    A job is named by its id, or by a ``RemoteJob``, which also knows what its volumes are called here. One that was
    submitted goes on whatever becomes of the client, and can be waited for and fetched from elsewhere, with its id.

    Example::

        with Client("https://segment.lab.example") as client:
            job = client.jobs.submit("scan.nii.gz", outputs=["probabilities"])
            client.jobs.wait(job, hear=lambda job: print(job.state, job.tiles_done, job.tiles_total))
            client.jobs.download(job, "mask.nii.gz", outputs={"probabilities": "probabilities.nii.gz"})

    All methods raise these, beside what they say themselves:
        UnknownJobError: there is no such job, or it is not one of this key's.
        BusyError: the server is asked too often, or cannot reach its queue; it says when to ask again.
        UsageError: what cannot be a job's id, or the server wants an API key.
        RemoteError: the server cannot be reached, fails, or answers as voxport does not.
    """

    def __init__(self, connection: Connection, clock: Clock | None = None) -> None:
        self._connection = connection
        self._clock = clock or Clock()

    def submit(
        self,
        volumes: Volumes,
        *,
        model: str | None = None,
        outputs: Iterable[str] = (),
        key: str | None = None,
        hear: Hear = silent,
        **options: Unpack[RemoteOptions],
    ) -> RemoteJob:
        """Put a case into the server's queue; the volumes are streamed from disk.

        The request carries a key, by which the server knows it again: however often it comes, it makes one job. Where
        the volumes went out whole and the connection broke before the answer came, it is sent once more, as nobody
        knows then whether there is a job. If that fails too, the error has the key, to submit with again.

        Args:
            volumes: as for ``Client.segment``, as is everything that is not named here.
            outputs: besides the mask: probabilities (which are kept only if they are asked for), statistics, preview,
                report.
            key: the request's own name, 1 to 255 printable ASCII characters, such as the case's number in your
                records; a random one where it is not given.
            hear: called as ``hear("upload", done, total)``, in bytes.

        Raises:
            UsageError, InputError, ModelError, LimitError, OutputError: what is refused at once, as a run on this
                machine would refuse it; UsageError also for a key that came before with another case.
            BusyError: also: the queue is full.
        """
        key = str(uuid.uuid4()) if key is None else checked_request_key(key)
        wanted = asked_outputs(["mask", *outputs])
        check_outputs(wanted)
        paths, fields = paths_of(volumes), fields_of([model], options, wanted)
        try:
            return self._submitted(paths, fields, key, hear)
        except LostAnswerError:
            pass
        try:
            return self._submitted(paths, fields, key, hear)
        except UnreachableError as error:  # also one that cannot be sent this time: the first may have made a job
            do = f"submit the same again with key={key!r}: that makes no second job"
            raise LostAnswerError(error.subject, expected=error.expected, got=error.got, do=do) from None

    def get(self, job: RemoteJob | str) -> RemoteJob:
        """A job as it is now."""
        return self._checked(self._connection.json("GET", job_path(job_id(job))), job)

    def list(self, states: Iterable[str] = (), limit: int = 100) -> tuple[RemoteJob, ...]:
        """Jobs, the latest first.

        Args:
            states: those in these states only; in any where there are none.
            limit: at most so many, 1 to 1000.

        Raises:
            UsageError: a state that there is not, or another limit.
        """
        wanted = tuple(states)
        if unknown := set(wanted) - set(JOB_STATES):
            got = ", ".join(sorted(map(str, unknown)))
            raise UsageError("states", expected=f"some of {', '.join(JOB_STATES)}", got=got, do="correct it")
        if not 1 <= limit <= _LONGEST_LIST:
            raise UsageError("limit", expected=f"1 to {_LONGEST_LIST}", got=str(limit), do="correct it")
        query = urlencode([*(("state", state) for state in wanted), ("limit", str(limit))])
        told = self._connection.json("GET", f"{JOBS}?{query}").get("jobs")
        if not isinstance(told, list) or len(told) > limit:
            got = f"{len(told)} of them" if isinstance(told, list) else "something else"
            raise RemoteError.wrong_answer(self._connection.url, expected=f"up to {limit} jobs", got=got)
        return tuple(remote_job(entry, self._connection.url) for entry in told)

    def wait(
        self,
        job: RemoteJob | str,
        *,
        hear: HearJob = unheard,
        timeout_seconds: float | None = None,
        patience_seconds: float = 300.0,
    ) -> RemoteJob:
        """Wait for a job, and return it once it is done; like a future's result, it raises what the job ended with.

        The job goes on whether anybody waits for it or not. A server that restarts, or a connection that breaks, is
        waited out.

        Args:
            job: the job or its id.
            hear: called as ``hear(job)`` at first, each time that something about the job is new, and when it ended.
            timeout_seconds: how long to wait; 0 looks once. As long as it takes where it is not given.
            patience_seconds: how long the server may be away, or busy, at a time.

        Raises:
            VoxportError: why the job failed or was set aside, of the class that a run on this machine would raise.
            CancelledError: it was cancelled.
            TimeLimitError: it did not end in time.
            UnreachableError, BusyError: the server was away, or busy, for longer than the patience lasts.
        """
        _check_seconds("timeout_seconds", timeout_seconds)
        _check_seconds("patience_seconds", patience_seconds)
        follower = Follower(
            self._connection,
            job_id(job),
            _volumes(job),
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            clock=self._clock,
        )
        ended = follower.follow(hear)
        if ended.error is not None:
            raise ended.error
        return ended

    def cancel(self, job: RemoteJob | str) -> RemoteJob:
        """Have a job stop: at once if it waits, at its next tile if it runs. One that has ended stays as it is.

        Raises:
            UnknownJobError
        """
        told = self._connection.json("POST", f"{job_path(job_id(job))}/cancel", also=(202,))
        return self._checked(told, job)

    def retry(self, job: RemoteJob | str) -> RemoteJob:
        """Put a job that failed, was cancelled or was set aside into the queue again, last in line.

        Raises:
            UsageError: it is in another state.
        """
        path = f"{job_path(job_id(job))}/retry"
        return self._checked(self._connection.json("POST", path, also=(202,)), job)

    def delete(self, job: RemoteJob | str) -> None:
        """Delete a job that has ended, with its volumes and results, before the server does so by itself.

        Raises:
            UsageError: it has not ended.
        """
        now = self.get(job)
        # the server would take this for a wish to cancel it
        if not now.has_ended or self._deleted(now.id) is not None:
            got = f"one that is {now.state}"
            raise UsageError(f"job {now.id}", expected="one that has ended", got=got, do="cancel it first")

    def download(
        self,
        job: RemoteJob | str,
        destination: StrPath,
        *,
        outputs: Mapping[str, StrPath] | None = None,
        hear: Hear = silent,
    ) -> Mapping[str, Any]:
        """Fetch the results of a job that is done, and compare each with the hash that the job has of it.

        Every file appears whole under its name once all of them are there, the mask last; of a failure nothing appears.

        Args:
            job: the job or its id.
            destination: the mask, ``.nii`` or ``.nii.gz``.
            outputs: further files, as for ``Client.segment``.
            hear: called as ``hear("download", done, total)``, in bytes of each file in turn.

        Returns:
            The run's report, with the files' names here; volumes are called as on the server where the job is given
            by its id.

        Raises:
            UsageError: it has not ended, an output was not asked for when it was submitted, or a name of the wrong
                kind.
            OutputError: no room.
            VoxportError: why it failed or was cancelled, as ``wait``.
            RemoteError: also: what came is not what the job has.
        """
        places = {"mask": Path(destination)} | {output: Path(path) for output, path in (outputs or {}).items()}
        check_destinations(places, _volumes(job))
        now = self.get(job)
        _check_done(now, places)
        members = {member_of(output, path): path for output, path in places.items()}
        files = JobFiles(self._connection, job_path(now.id), now, Path(destination).parent, hear)
        with received(files, now.sent, members) as (report, downloads):
            _check_report(report, now, self._connection.url)
            commit_all(downloads, last=Path(destination))
            return report

    def _submitted(self, paths: Sequence[Path], fields: Fields, key: str, hear: Hear) -> RemoteJob:
        def heard(stage: str, done: int, total: int) -> None:
            if stage == "upload":
                hear(stage, done, total)

        headers = {"Idempotency-Key": key}
        with Uploads(paths, heard) as uploads:
            told = self._connection.json("POST", JOBS, form=uploads.form(fields), also=(202,), headers=headers)
            job = remote_job(told, self._connection.url, paths)
            uploads.sent().check_received({"inputs": [{"sha256": i.sha256} for i in job.inputs]}, self._connection.url)
            return job

    def _deleted(self, id: str) -> Mapping[str, Any] | None:
        """Delete a job, or cancel it if it goes on: None where its data was deleted."""
        with self._connection.answer("DELETE", job_path(id), JSON, also=(202, 204)) as response:
            return None if response.status_code == 204 else self._connection.parsed(response)

    def _checked(self, data: object, job: RemoteJob | str) -> RemoteJob:
        return remote_job(data, self._connection.url, _volumes(job), job_id(job))


def _volumes(job: RemoteJob | str) -> tuple[Path, ...]:
    return job.volumes if isinstance(job, RemoteJob) else ()


def _check_done(job: RemoteJob, outputs: Iterable[str]) -> None:
    if job.error is not None:
        raise job.error
    if not job.has_ended:
        got = f"one that is {job.state}"
        raise UsageError(f"job {job.id}", expected="one that is done", got=got, do="wait for it")
    if missing := [output for output in outputs if output not in job.results]:
        do = "submit the case again with these outputs"
        raise UsageError(f"job {job.id}", expected=f"one with {', '.join(missing)}", got="one without", do=do)


def _check_report(report: Mapping[str, Any], job: RemoteJob, url: str) -> None:
    got = f"{report['model']['name']}:{report['model']['version']}"
    if got != job.model:
        raise RemoteError.wrong_answer(url, expected=f"a report of {job.model}", got=f"one of {got}")


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not (isfinite(seconds) and seconds >= 0):
        raise UsageError(name, expected="a number of seconds", got=f"{seconds:g}", do="correct it")

"""The job queue of a server."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlencode

from ..domain.errors import UsageError
from ..domain.job import JOB_STATES
from ..domain.run import RemoteOptions
from ..domain.volume_names import USUAL_FORMAT, MaskFormat, mask_format
from .answers import JSON, RemoteJob, remote_job
from .downloads import check_destinations, check_outputs, commit_all
from .errors import LostAnswerError, RemoteError, UnreachableError, one_line
from .following import Clock, Follower, OnJob
from .forms import Fields, OnProgress, StrPath, Uploads, Volumes, checked_request_key, fields_of, files_of, silent
from .results import asked_format, asked_outputs, check_received, job_members, places_of, received

if TYPE_CHECKING:
    from .connection import Connection

_JOBS = "/v1/jobs"
_VALID_ID = re.compile("[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_LONGEST_LIST = 1000


class Jobs:
    """Jobs of the client's key on a server: ``Client.jobs``.

    A job is given by its id, or by a `RemoteJob`, which also has local names of volumes. A job continues without the
    client, and another program can wait for it and download its results by its id.

    Example::

        with Client("https://segment.lab.example") as client:
            job = client.jobs.submit("scan.nii.gz", outputs=["probabilities"])
            client.jobs.wait(job, on_progress=lambda job: print(job.state, job.tiles_done, job.tiles_total))
            client.jobs.download(job, "mask.nii.gz", outputs={"probabilities": "probabilities.nii.gz"})

    All methods also raise:
        UnknownJobError: no such job of this key.
        BusyError: a rate limit, or the queue is unavailable; contains the time to wait.
        UsageError: an invalid id, or the server requires an API key.
        RemoteError: the server is unreachable, fails, or is not voxport.
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
        format: MaskFormat = USUAL_FORMAT,
        key: str | None = None,
        callback_url: str | None = None,
        on_progress: OnProgress = silent,
        **options: Unpack[RemoteOptions],
    ) -> RemoteJob:
        """Submit a case; the volumes are streamed from disk.

        The request has an idempotency key, so repeated requests make one job. If the connection breaks after a complete
        upload, the request is sent once more. If that fails too, the error contains the key.

        Args:
            volumes: as other arguments not listed, see `Client.segment`.
            outputs: besides the mask: probabilities and uncertainty (only stored on request), statistics, preview,
                report.
            format: of the mask: ``nii.gz``, ``ome.tif``, ``ome.zarr`` and so on.
            key: idempotency key, 1 to 255 printable ASCII characters; random by default.
            callback_url: called by POST when the job has ended, where the service allows its origin.
            on_progress: called as ``on_progress("upload", done, total)``, in bytes.

        Raises:
            UsageError, InputError, ModelError, LimitError, OutputError: as a local run; UsageError also for a key
                that was used for another case, and for a URL that the service does not allow.
            BusyError: also if the queue is full.
        """
        key = str(uuid.uuid4()) if key is None else checked_request_key(key)
        wanted = asked_outputs(["mask", *outputs])
        check_outputs(wanted)
        asked = None if format == USUAL_FORMAT else format
        paths, stated = files_of(volumes, options)
        fields = fields_of([model], stated, wanted, asked)
        fields |= {} if callback_url is None else {"callback_url": [callback_url]}
        try:
            return self._submitted(paths, fields, key, on_progress)
        except LostAnswerError:
            pass
        try:
            return self._submitted(paths, fields, key, on_progress)
        except UnreachableError as error:  # also if the second cannot be sent, as the first may have made a job
            do = f"submit the same again with key={key!r}: that makes no second job"
            raise LostAnswerError(error.subject, expected=error.expected, got=error.got, do=do) from None

    def get(self, job: RemoteJob | str) -> RemoteJob:
        """Return a job."""
        return self._asked("GET", job)

    def list(self, states: Iterable[str] = (), limit: int = 100, *, offset: int = 0) -> tuple[RemoteJob, ...]:
        """Return jobs, newest first.

        Args:
            states: only these states; all if empty.
            limit: maximum number, 1 to 1000.
            offset: number of jobs to leave out first, for the pages after the first.

        Raises:
            UsageError: an unknown state or invalid limit.
        """
        wanted = tuple(states)
        if unknown := set(wanted) - set(JOB_STATES):
            got = ", ".join(sorted(map(str, unknown)))
            raise UsageError("states", expected=f"some of {', '.join(JOB_STATES)}", got=got, do="correct it")
        if not 1 <= limit <= _LONGEST_LIST:
            raise UsageError("limit", expected=f"1 to {_LONGEST_LIST}", got=str(limit), do="correct it")
        if offset < 0:
            raise UsageError("offset", expected="0 or more", got=str(offset), do="correct it")
        query = urlencode([*(("state", state) for state in wanted), ("limit", str(limit)), ("offset", str(offset))])
        jobs = self._connection.json("GET", f"{_JOBS}?{query}").get("jobs")
        if not isinstance(jobs, list) or len(jobs) > limit:
            got = f"{len(jobs)} of them" if isinstance(jobs, list) else "something else"
            raise RemoteError.wrong_answer(self._connection.url, expected=f"up to {limit} jobs", got=got)
        return tuple(remote_job(entry, self._connection.url) for entry in jobs)

    def wait(
        self,
        job: RemoteJob | str,
        *,
        on_progress: OnJob = silent,
        timeout_seconds: float | None = None,
        patience_seconds: float = 300.0,
    ) -> RemoteJob:
        """Wait for a job and return it when done; raises its error otherwise.

        Tolerates restarts of the server and broken connections.

        Args:
            job: the job or its id.
            on_progress: called as ``on_progress(job)`` at first, at every change, and at the end.
            timeout_seconds: maximum wait, 0 to check once; no limit by default.
            patience_seconds: maximum outage or load of the server at a time.

        Raises:
            VoxportError: the error of a failed or dead-lettered job, of the class of a local run.
            CancelledError: it was cancelled.
            TimeLimitError: it did not end in time.
            UnreachableError, BusyError: the server was unavailable for longer than the patience.
        """
        _check_seconds("timeout_seconds", timeout_seconds)
        _check_seconds("patience_seconds", patience_seconds)
        follower = Follower(
            self._connection,
            _path(job),
            _id(job),
            _volumes(job),
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            clock=self._clock,
        )
        ended = follower.follow(on_progress)
        if ended.error is not None:
            raise ended.error
        return ended

    def cancel(self, job: RemoteJob | str) -> RemoteJob:
        """Cancel a job: at once if queued, at its next tile if running. An ended job is unchanged."""
        return self._asked("POST", job, "/cancel")

    def retry(self, job: RemoteJob | str) -> RemoteJob:
        """Queue a failed, cancelled or dead-lettered job again, as the last.

        Raises:
            UsageError: another state.
        """
        return self._asked("POST", job, "/retry")

    def delete(self, job: RemoteJob | str) -> None:
        """Delete an ended job with its volumes and results.

        Raises:
            UsageError: it has not ended.
        """
        now = self.get(job)
        if now.has_ended:
            with self._connection.answer("DELETE", _path(now), JSON, also=(202, 204)) as response:
                if response.status_code == 204:
                    return
        # DELETE cancels a job that has not ended
        got = f"one that is {now.state}"
        raise UsageError(f"job {now.id}", expected="one that has ended", got=got, do="cancel it first")

    def download(
        self,
        job: RemoteJob | str,
        destination: StrPath,
        *,
        outputs: Mapping[str, StrPath] | None = None,
        on_progress: OnProgress = silent,
    ) -> Mapping[str, Any]:
        """Download the results of a finished job and check their hashes.

        Files appear together when all are complete, the mask last; none appear after a failure.

        Args:
            job: the job or its id.
            destination: the mask, with an ending of the job's format.
            outputs: further files, as for `Client.segment`.
            on_progress: called as ``on_progress("download", done, total)``, in bytes of each file.

        Returns:
            The run's report with local names of files; volumes have the server's names if the job is given by id.

        Raises:
            UsageError: it has not ended, an output was not requested on submission, or a wrong suffix.
            OutputError: a file cannot be written.
            VoxportError: the error of a failed job, as `wait`.
            RemoteError: also for a file with another hash.
        """
        places = {"mask": Path(destination)} | {output: Path(path) for output, path in (outputs or {}).items()}
        check_destinations(places, _volumes(job))
        now = self.get(job)
        _check_done(now, places)
        if now.format not in (mask_format(places["mask"].name), asked_format(places["mask"]) or USUAL_FORMAT):
            expected = f"a name in .{now.format} for the mask of this job"
            raise UsageError(str(destination), expected=expected, got="another", do="rename it")
        members = places_of(places, None if now.format == USUAL_FORMAT else now.format)
        files = job_members(self._connection, _path(now), now, Path(destination).parent, on_progress)
        with received(files, now.inputs, members) as (report, downloads):
            got = f"{report['model']['name']}:{report['model']['version']}"
            if got != now.model:
                expected = f"a report of {now.model}"
                raise RemoteError.wrong_answer(self._connection.url, expected=expected, got=f"one of {got}")
            commit_all(downloads, last=Path(destination))
            return report

    def _submitted(self, paths: Sequence[Path], fields: Fields, key: str, on_progress: OnProgress) -> RemoteJob:
        def count_bytes(stage: str, done: int, total: int) -> None:
            if stage == "upload":
                on_progress(stage, done, total)

        headers = {"Idempotency-Key": key}
        with Uploads(paths, count_bytes) as uploads:
            answer = self._connection.json("POST", _JOBS, form=uploads.form(fields), also=(202,), headers=headers)
            job = remote_job(answer, self._connection.url, paths)
            check_received(uploads.sent(), (file.sha256 for file in job.inputs), self._connection.url)
            return job

    def _asked(self, method: str, job: RemoteJob | str, action: str = "") -> RemoteJob:
        answer = self._connection.json(method, f"{_path(job)}{action}", also=(202,))
        return remote_job(answer, self._connection.url, _volumes(job), _id(job))


def _id(job: RemoteJob | str) -> str:
    id = job.id if isinstance(job, RemoteJob) else job
    if not _VALID_ID.fullmatch(id):
        raise UsageError("job", expected="the id of a job", got=one_line(id) or "nothing", do="list your jobs")
    return id


def _path(job: RemoteJob | str) -> str:
    return f"{_JOBS}/{_id(job)}"


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


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not (isfinite(seconds) and seconds >= 0):
        raise UsageError(name, expected="a number of seconds", got=f"{seconds:g}", do="correct it")

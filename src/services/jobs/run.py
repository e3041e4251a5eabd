"""Cases as jobs: put into the queue with their volumes, run by a worker wherever it is, and deleted in time."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...domain.errors import InputError, OutputError, UnknownJobError, UnknownModelError, UsageError, VoxportError
from ...domain.job import ENDED, Job, JobCase, StoredFile
from ...domain.run import Outputs, RunOptions
from ...ports.blobs import BlobStore
from ...ports.folders import WorkFolders
from ...ports.job_queue import Attempt, JobQueue, Results
from ..models.loading import LoadedModel
from ..segmentation.prepare import memory_limit
from ..segmentation.report import RESULT_FILES, STATISTICS_TABLE, portable_report
from ..segmentation.resume import Checkpoint
from ..segmentation.segment import SegmentPorts, segment
from ..segmentation.statistics_file import statistics_bytes

# probabilities are large; all else is always made
_ALWAYS = frozenset({"mask", "statistics", "preview", "report"})
# a result beside those of ``RESULT_FILES``: the statistics once more, as a table
TABLE = "statistics_table"
_CASES = "cases"
_ALL = 1_000_000
_SUBMITTING_SECONDS = 3600.0  # volumes may be on their way into the queue for so long


@dataclass(frozen=True)
class JobPorts:
    """What jobs need from outside."""

    queue: JobQueue
    blobs: BlobStore


@dataclass(frozen=True)
class JobSettings:
    """How jobs are run: how often finished planes are kept, which voxport this is.

    ``retention_seconds`` is how long jobs are kept that have ended; they are looked for every so often.
    ``memory_bytes`` is what one job may take: its share of what is free where it is None, ``at_once`` running here.
    """

    version: str
    memory_bytes: int | None = None
    at_once: int = 1
    keep_every_seconds: float = 10.0
    retention_seconds: float = 7 * 86400.0
    sweep_every_seconds: float = 60.0


def submit_case(
    volumes: Sequence[tuple[str, Path]],
    model: str,
    options: RunOptions,
    outputs: Sequence[str],
    owner: str,
    *,
    ports: JobPorts,
    key: str | None = None,
    model_sha256: str = "",
    estimate_seconds: float | None = None,
    folder: str | None = None,
) -> Job:
    """Store a case's volumes and put it into the queue.

    Args:
        volumes: name and local file of each volume, in order; names end as their format wants it.
        model: the model's ``name:version``.
        options: what to do differently from the card.
        outputs: names in ``RESULT_FILES``; all but the probabilities are always made.
        owner: whose job it is.
        ports: the queue and the blobs.
        key: the request's name; sent again it gives the same job.
        model_sha256: of the model's file, which every worker must then have.
        estimate_seconds: what the run will take, if that was foretold.
        folder: of ``case_folder``; a job with another one is the one that the key made before.

    Raises:
        BusyError, UsageError: as ``JobQueue.submit``.
        OutputError: the volumes cannot be stored.
    """
    folder = folder or case_folder()
    wanted = tuple(name for name in RESULT_FILES if name in _ALWAYS or name in outputs)
    try:
        stored = []
        for number, (name, path) in enumerate(volumes):
            blob = f"{folder}/inputs/{number}"
            stored.append(StoredFile(Path(name).name, blob, ports.blobs.put(blob, path)))
        case = JobCase(folder, tuple(stored), model, asdict(options), wanted, model_sha256, estimate_seconds)
        job = ports.queue.submit(case, owner, key=key)
    except BaseException:
        ports.blobs.delete_prefix(folder)
        raise
    if job.case.folder != folder:  # the key's job has its volumes
        ports.blobs.delete_prefix(folder)
    return job


def case_folder() -> str:
    """A new prefix for the blobs of one case."""
    return f"{_CASES}/{int(time.time()):010d}-{uuid.uuid4()}"


def run_job(
    attempt: Attempt,
    *,
    take: Callable[[str], LoadedModel],
    ports: SegmentPorts,
    blobs: BlobStore,
    settings: JobSettings,
    folders: WorkFolders,
) -> Results:
    """Run a job, from the last planes that an earlier attempt kept, and store its results.

    Args:
        attempt: the job, and who hears of its tiles.
        take: gives the model of a reference, loaded.
        ports: as for segmenting.
        blobs: where the case's files are.
        settings: how.
        folders: where the job's files are unpacked.

    Raises:
        UnknownModelError: this worker has another model under the name, or none.
        VoxportError: as ``segment``. OSError where the scratch folder or the blobs cannot be used.
    """
    job = attempt.job
    case = job.case
    loaded = _taken(case, take)
    with folders.new() as scratch, _bare_names(scratch):
        inputs = [_fetched(blobs, file, scratch / f"input-{n}") for n, file in enumerate(case.inputs)]
        folder = scratch / "results"
        folder.mkdir()
        files = {name: folder / RESULT_FILES[name] for name in case.outputs}
        outputs = Outputs(**{name: str(path) for name, path in files.items() if name != "report"})
        checkpoint = Checkpoint(
            blobs, f"{case.folder}/planes", version=settings.version, every_seconds=settings.keep_every_seconds
        )
        progress = _JobProgress(attempt)
        options = options_of(case.options)
        if options.memory_bytes is None:
            options = replace(
                options, memory_bytes=settings.memory_bytes or memory_limit(settings.at_once, ports.resources)
            )
        done = segment(inputs, loaded, outputs, options, progress, ports=ports, checkpoint=checkpoint)
        report = portable_report(done, loaded, version=settings.version)
        files["report"].write_text(json.dumps(report, indent=2) + "\n")
        files[TABLE] = folder / STATISTICS_TABLE
        files[TABLE].write_bytes(statistics_bytes(STATISTICS_TABLE, done.statistics, done.grid))
        progress.check()
        # an attempt's own folder: one that was given up, and does not know it yet, must not replace another's results
        below = f"{case.folder}/results-{job.attempts}"
        results = {name: _stored(blobs, f"{below}/{path.name}", path) for name, path in files.items()}
        checkpoint.clear()
    return results


def forget_job(id: str, owner: str | None, *, ports: JobPorts) -> None:
    """Delete a job that has ended, with all that is stored of it. Raises UnknownJobError, UsageError, OutputError."""
    job = ports.queue.get(id, owner)
    if job.has_ended:
        ports.blobs.delete_prefix(job.case.folder)
    ports.queue.forget(id, owner)


def sweep(now: float, retention_seconds: float, *, ports: JobPorts) -> int:
    """Delete jobs that ended longer ago than they are kept, and volumes that never became a job's; how many jobs.

    Raises:
        OutputError: some files could not be deleted; all others were.
    """
    limit = now - retention_seconds
    old = ports.queue.list(states=ENDED, limit=_ALL, ended_before=limit)
    swept = [job for job in old if _is_forgotten(job.id, ports.queue)]
    # the folders first: a job that comes in between is then not taken for a stray
    folders = {"/".join(name.split("/")[:2]) for name in ports.blobs.names(_CASES)}
    strays = {folder for folder in folders if _begun(folder) < min(limit, now - _SUBMITTING_SECONDS)}
    if strays:
        strays -= {job.case.folder for job in ports.queue.list(limit=_ALL)}
    failed = []
    for folder in {job.case.folder for job in swept} | strays:
        try:
            ports.blobs.delete_prefix(folder)
        except OutputError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return len(swept)


def _is_forgotten(id: str, queue: JobQueue) -> bool:
    """Take an old job out of the queue: only then are its files nobody's, as it might be tried again in between."""
    try:
        queue.forget(id)
    except (UnknownJobError, UsageError):  # another process was quicker, or it waits again
        return False
    return True


def options_of(data: Mapping[str, Any]) -> RunOptions:
    """Options from the plain data that they were stored as."""
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    return RunOptions(**given)


def _begun(folder: str) -> float:
    began = folder.partition("/")[2].partition("-")[0]
    return float(began) if began.isdigit() else 0.0


def _taken(case: JobCase, take: Callable[[str], LoadedModel]) -> LoadedModel:
    """The case's model, the very file that it was to be: another one under its name would give other masks."""
    loaded = take(case.model)
    if case.model_sha256 not in ("", loaded.model.sha256):
        raise UnknownModelError(
            case.model,
            expected=f"the file with sha256 {case.model_sha256}",
            got=f"one with {loaded.model.sha256} under its name",
            do="give every worker the same file, and then try the job again",
        )
    return loaded


def _fetched(blobs: BlobStore, file: StoredFile, folder: Path) -> str:
    folder.mkdir()
    path = folder / file.name
    sha256 = blobs.fetch(file.blob, path)
    if sha256 != file.sha256:
        do = "send it again"
        raise InputError(file.name, expected=f"the bytes that were sent ({file.sha256})", got=sha256, do=do)
    return str(path)


def _stored(blobs: BlobStore, blob: str, path: Path) -> StoredFile:
    return StoredFile(path.name, blob, blobs.put(blob, path))


@contextmanager
def _bare_names(scratch: Path) -> Iterator[None]:
    """Errors name files as whoever sent them knows them, not where they lie on this machine."""
    try:
        yield
    except VoxportError as error:
        error.args = (re.sub(rf"{re.escape(str(scratch))}/([\w-]+/)?", "", str(error)),)
        raise


class _JobProgress:
    """Tells an attempt of its tiles, and looks at each stage whether it should go on."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._done, self._total = 0, 0

    def check(self) -> None:
        """Raise CancelledError if the run should stop."""
        self._attempt.report(self._done, self._total)

    def stage(self, name: str, tiles: int = 0) -> None:  # noqa: ARG002 - the port's signature
        """See ProgressListener."""
        self._total = self._total or tiles
        self.check()

    def advance(self, tiles: int) -> None:
        """See ProgressListener."""
        self._done += tiles
        self.check()

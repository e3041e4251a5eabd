"""Submit cases: store their volumes and queue them. Delete jobs that have ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...domain.job import Job, JobCase, StoredFile
from ...domain.run import RESULT_FILES, RunOptions
from ...domain.volume_names import USUAL_FORMAT, MaskFormat
from ...ports.blobs import BlobStore
from ...ports.job_queue import JobQueue

CASES = "cases"
# probabilities and uncertainty are large and made on demand only
_ALWAYS = frozenset({"mask", "statistics", "preview", "report"})


@dataclass(frozen=True)
class JobPorts:
    """Where jobs wait, and where their files are kept."""

    queue: JobQueue
    blobs: BlobStore


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
    hashes: Sequence[str] = (),
    mask_format: MaskFormat = USUAL_FORMAT,
) -> Job:
    """Store a case's volumes and queue it.

    Args:
        volumes: name, with its format's ending, and local file of each volume, in order.
        model: the model's ``name:version``.
        outputs: names in ``RESULT_FILES``; only probabilities and uncertainty are optional.
        key: name of the request: the same key gives the same job.
        model_sha256: of the model's file, which every worker must have.
        estimate_seconds: estimated run time.
        folder: of ``case_folder``. The job of an earlier request with the same key has another one.
        hashes: sha256 of each file. Where they are given, the store takes the files over instead of copying them.
        mask_format: format of the mask.

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
            if hashes:
                ports.blobs.take(blob, path, hashes[number])
            sha256 = hashes[number] if hashes else ports.blobs.put(blob, path)
            stored.append(StoredFile(Path(name).name, blob, sha256))
        case = JobCase(
            folder, tuple(stored), model, asdict(options), wanted, model_sha256, estimate_seconds, mask_format
        )
        job = ports.queue.submit(case, owner, key=key)
    except BaseException:
        ports.blobs.delete_prefix(folder)
        raise
    if job.case.folder != folder:  # the job of an earlier request has its own volumes
        ports.blobs.delete_prefix(folder)
    return job


def forget_job(id: str, owner: str | None, *, ports: JobPorts) -> None:
    """Delete a job that has ended and its stored files. Raises UnknownJobError, UsageError, OutputError."""
    job = ports.queue.get(id, owner)
    if job.has_ended:
        ports.blobs.delete_prefix(job.case.folder)
    ports.queue.forget(id, owner)


def case_folder() -> str:
    """A new prefix for the blobs of one case."""
    return f"{CASES}/{int(time.time()):010d}-{uuid.uuid4()}"

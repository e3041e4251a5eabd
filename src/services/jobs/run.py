"""Run a job: fetch its volumes, segment them, store its results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...domain.errors import InputError, UnknownModelError, VoxportError
from ...domain.job import JobCase, StoredFile
from ...domain.labels.statistics_file import statistics_bytes
from ...domain.run import STATISTICS_TABLE, Outputs, RunOptions, result_files
from ...ports.blobs import BlobStore
from ...ports.folders import WorkFolders
from ...ports.job_queue import Attempt, Results
from ..models.loading import LoadedModel
from ..segmentation.preparation.planning import memory_limit
from ..segmentation.report import portable_report
from ..segmentation.resume import Checkpoint
from ..segmentation.segment import SegmentPorts, segment

# a result beside those of ``result_files``: the statistics once more, as a table
TABLE = "statistics_table"


@dataclass(frozen=True)
class JobSettings:
    """How jobs are run and how long they are kept after their end.

    ``memory_bytes`` limits one job; None divides the free memory among ``at_once`` jobs. Finished planes are stored
    every ``keep_every_seconds``, and old jobs are deleted every ``sweep_every_seconds``. Reports state ``version``.
    """

    version: str
    memory_bytes: int | None = None
    at_once: int = 1
    keep_every_seconds: float = 10.0
    retention_seconds: float = 7 * 86400.0
    sweep_every_seconds: float = 60.0


def run_job(
    attempt: Attempt,
    *,
    take: Callable[[str], LoadedModel],
    ports: SegmentPorts,
    blobs: BlobStore,
    settings: JobSettings,
    folders: WorkFolders,
) -> Results:
    """Run a job from its last checkpoint, and store its results. ``take`` loads the model of a reference.

    Raises:
        UnknownModelError: this worker lacks the model, or has another file under its name.
        VoxportError: as ``segment``. OSError: the scratch folder or the blobs fail.
    """
    job = attempt.job
    case = job.case
    loaded = _taken(case, take)
    with folders.new() as scratch, _bare_names(scratch):
        inputs = [_fetched(blobs, file, scratch / f"input-{n}") for n, file in enumerate(case.inputs)]
        folder = scratch / "results"
        folder.mkdir()
        names = result_files(case.mask_format)
        files = {name: folder / names[name] for name in case.outputs}
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
        report = portable_report(done, loaded, version=settings.version, mask=names["mask"])
        files["report"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        files[TABLE] = folder / STATISTICS_TABLE
        files[TABLE].write_bytes(statistics_bytes(STATISTICS_TABLE, done.statistics, done.grid))
        progress.check()
        # a folder for each attempt: one that lost the job without noticing must not replace another's results
        below = f"{case.folder}/results-{job.attempts}"
        results = {}
        for name, path in files.items():
            blob = f"{below}/{path.name}"
            results[name] = StoredFile(path.name, blob, blobs.put(blob, path))
        checkpoint.clear()
    return results


def options_of(data: Mapping[str, Any]) -> RunOptions:
    """Build ``RunOptions`` from the plain data of a job."""
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    return RunOptions(**given)


def _taken(case: JobCase, take: Callable[[str], LoadedModel]) -> LoadedModel:
    """Load the case's model. Raises UnknownModelError for a file other than the one of the submission."""
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
    sha256 = blobs.link(file.blob, path)
    if sha256 != file.sha256:
        do = "send it again"
        raise InputError(file.name, expected=f"the bytes that were sent ({file.sha256})", got=sha256, do=do)
    return str(path)


@contextmanager
def _bare_names(scratch: Path) -> Iterator[None]:
    """Cut the scratch folder from file names in errors."""
    try:
        yield
    except VoxportError as error:
        error.args = (re.sub(rf"{re.escape(str(scratch))}/([\w-]+/)?", "", str(error)),)
        raise


class _JobProgress:
    """Reports tiles to an attempt, which stops the run by raising CancelledError."""

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

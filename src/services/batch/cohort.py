"""Segment many cases through a queue of jobs; skips cases that are done, and goes on after a failed one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Literal, Protocol

from ...domain.cases import CaseFiles
from ...domain.errors import BusyError, InputError, OutputError, UnknownJobError, VoxportError
from ...domain.job import Job
from ...ports.locks import Locks
from ..jobs.admin import queue_errors
from ..jobs.submit import JobPorts, forget_job, submit_case
from .folder import STATE, BatchFolder, held
from .packing import Pack, Packer
from .record import BatchWork, CohortTable, Made, copy_results, hash_of, made_before

OWNER = "batch"
_MORE_THAN_RUN = 2  # queued cases, so that no worker is idle
_GLANCE_SECONDS, _SHARED_GLANCE_SECONDS = 0.2, 1.0
_TABLE_SECONDS = 60.0
_ALL = 1_000_000

CaseState = Literal["done", "skipped", "failed"]
Worker = Callable[[Event], object]


@dataclass(frozen=True)
class CaseResult:
    """The end of a case: segmented, skipped as unchanged, or failed for a reason."""

    case: str
    state: CaseState
    reason: str | None = None
    warnings: tuple[str, ...] = ()


class BatchListener(Protocol):
    """Receives the progress of a batch."""

    def moved(self, cases: float, total: int) -> None:
        """``cases`` of ``total`` have ended; a running one counts by its share of tiles."""

    def ended(self, result: CaseResult) -> None:
        """A case has ended."""

    def warn(self, message: str) -> None:
        """The batch waits for this reason."""


def run_batch(
    cases: Sequence[CaseFiles],
    volumes: Path,
    folder: BatchFolder,
    work: BatchWork,
    listener: BatchListener,
    *,
    open_ports: Callable[[], JobPorts],
    locks: Locks,
    pack: Pack,
    worker: Worker | None = None,
    at_once: int = 1,
    watch: Callable[[], Sequence[CaseFiles]] | None = None,
    redo: bool = False,
) -> tuple[CaseResult, ...]:
    """Segment all cases that are not done, and write their results and one table of statistics.

    Cases have unique names, and their files lie below ``volumes``. ``worker`` runs ``at_once`` jobs at a time until its
    event is set; None for a shared queue. ``pack`` makes a zip of a volume that is a folder. ``watch`` gives the cases
    that have come since it was last called; with it, the batch ends only by an exception. ``redo``: also segment cases
    that are done, and keep the rows of cases that are not among these in the table.

    Raises:
        UsageError: another batch writes to the folder now.
        OutputError: the folder cannot be written.
        VoxportError: the queue cannot be reached.
    """
    with held(folder, locks):
        token = folder.token(hash_of(work.record(())))
        with queue_errors() if worker is None else queue_errors(f"free disk space, or delete {folder.name / STATE}"):
            ports = open_ports()
            try:
                ports.queue.stats()  # raises here, before anything begins, where the queue is away
                own = None if worker is None else at_once
                packer = Packer(volumes, folder, pack)
                cohort = _Cohort(cases, packer, folder, work, token, ports, listener, own, watch, redo)
                for name, content in folder.layout.shared_files(work.model.card).items():
                    folder.land(folder.path / name, partial(Path.write_bytes, data=content))
                cohort.drop_strays()
                with _working_beside(worker) as check:
                    results = cohort.run(check)
            finally:
                ports.queue.close()
        if not cohort.left:
            folder.clear()
    return results


@contextmanager
def _working_beside(work: Worker | None) -> Iterator[Callable[[], object]]:
    """Work in a thread until the block ends; gives a check that raises the error that ended the work, if any."""
    stop = Event()
    with ThreadPoolExecutor(1, "voxport-batch-worker") as pool:
        working = pool.submit(work or Event.wait, stop)
        try:
            yield lambda: working.result() if working.done() else None
        finally:
            stop.set()


@dataclass
class _Cohort:
    """The cases of a batch, in a folder that this process has locked.

    ``at_once`` jobs run at a time in the batch's own queue. None stands for a shared queue, whose workers' slots count,
    and whose operators see to failed jobs. ``left``: the own queue holds results that a later run has to copy.
    """

    cases: Sequence[CaseFiles]
    packer: Packer
    folder: BatchFolder
    work: BatchWork
    token: str
    ports: JobPorts
    listener: BatchListener
    at_once: int | None
    watch: Callable[[], Sequence[CaseFiles]] | None = None
    redo: bool = False
    left: bool = False

    def __post_init__(self) -> None:
        self._queue = self.ports.queue
        self._glance = _SHARED_GLANCE_SECONDS if self.at_once is None else _GLANCE_SECONDS
        self._sha256 = cache(self.packer.sha256)
        self._table = CohortTable(self.folder, None if self.watch or self.redo else self.cases)
        self._waiting = deque(self.cases)
        self._under_way: dict[str, CaseFiles] = {}
        self._shares: dict[str, float] = {}
        self._results: dict[str, CaseResult] = {}
        self._warned: set[str] = set()
        self._looked = 0.0

    def run(self, check: Callable[[], object]) -> tuple[CaseResult, ...]:
        """Queue cases while slots are free, and copy their results, until all have ended or ``check`` raises.

        Raises:
            OutputError: the folder of results or of the queue cannot be written.
        """
        try:
            while self._waiting or self._under_way or self.watch:
                check()
                self._welcome_new_ones()
                taken_up = self._take_up_one()
                if not (self._look_at_jobs() or taken_up):
                    Event().wait(self._glance)
                self.listener.moved(len(self._results) + sum(self._shares.values()), len(self.cases))
                self._table.write(at_least_every=_TABLE_SECONDS)
        except BaseException:
            with suppress(VoxportError):
                self._table.write()
            raise
        self._table.write()
        return tuple(self._results[case.name] for case in self.cases)

    def _welcome_new_ones(self) -> None:
        """Add the cases that have come; one whose volumes have changed takes the place of its earlier state."""
        new = {case.name: case for case in self.watch()} if self.watch else {}
        if new:
            self._sha256.cache_clear()
            self.cases = [*(case for case in self.cases if case.name not in new), *new.values()]
            self._waiting = deque(case for case in self._waiting if case.name not in new)
            self._waiting.extend(new.values())
            for name in new:
                self._results.pop(name, None)

    def drop_strays(self) -> None:
        """Cancel jobs of the own queue whose volumes have changed, before its worker begins. Raises OSError.

        With a watch the cases are not known yet, and jobs of an earlier run go on.
        """
        for job in self._queue.list(OWNER, limit=_ALL) if self.at_once is not None and not self.watch else ():
            names, hashes = [file.name for file in job.case.inputs], [file.sha256 for file in job.case.inputs]
            alike = (case for case in self.cases if [self.packer.name(name) for name in case.files] == names)
            if not any(self._has(case, hashes) for case in alike):
                self._queue.cancel(job.id, OWNER)

    def _take_up_one(self) -> bool:
        """Skip or submit the next case if the queue has space; returns whether it did."""
        if not self._waiting or not self._has_space():
            return False
        case = self._waiting[0]
        try:
            self._take_up(case)
        except BusyError:
            return False
        except OutputError as error:
            if not self._under_way:
                raise OutputError.cannot_write("the queue's files", error.got) from None
            return self._wait_because(f"the queue's files: {error.got}")  # ended jobs free space
        except VoxportError as error:
            self._end(case, "failed", str(error))
        except OSError as error:
            return self._wait_because(error)
        self._waiting.popleft()
        return True

    def _has_space(self) -> bool:
        if len(self._under_way) <= _MORE_THAN_RUN:
            return True
        try:
            at_once = self._queue.stats().slots if self.at_once is None else self.at_once
        except OSError as error:
            return self._wait_because(error)
        return len(self._under_way) < at_once + _MORE_THAN_RUN

    def _take_up(self, case: CaseFiles) -> None:
        """Skip a case that is done; else submit it, or go on with the job that an earlier run submitted."""
        if case.problem is not None:
            raise case.problem
        hashes, work = self._hashes(case), self.work
        made = None if self.redo else made_before(self.folder, case, work, hashes)
        if made is not None:
            self._end(case, "skipped", made=made)
            return
        with ExitStack() as stack:
            files = [(self.packer.name(name), stack.enter_context(self.packer.file(name))) for name in case.files]
            job = submit_case(
                files,
                work.model.card.reference,
                work.options,
                work.outputs,
                OWNER,
                ports=self.ports,
                key=hash_of([self.token, case.name, case.files, work.record(hashes)]),
                model_sha256=work.model.sha256,
                mask_format=work.mask_format,
            )
        if job.state in ("failed", "cancelled", "parked"):
            self._queue.retry(job.id, OWNER)
        self._under_way[job.id] = case

    def _look_at_jobs(self) -> bool:
        """Copy the results of jobs that have ended, if the last look is long ago; returns whether any has."""
        if time.monotonic() - self._looked < self._glance:
            return False
        before = len(self._under_way)
        for id, case in list(self._under_way.items()):
            try:
                self._look_at(self._queue.get(id, OWNER), case)
            except UnknownJobError as error:
                self._end(case, "failed", str(error), id=id)
            except OSError as error:
                self._wait_because(error)
        if self._under_way and self.at_once is None:
            with suppress(OSError):
                if not self._queue.stats().workers:
                    self._wait_because("no worker runs jobs of this queue; start one with voxport worker")
        self._looked = time.monotonic()
        return len(self._under_way) < before

    def _look_at(self, job: Job, case: CaseFiles) -> None:
        if not job.has_ended:
            self._shares[job.id] = job.tiles_done / job.tiles_total if job.tiles_total else 0.0
            if job.state == "queued" and job.failure is not None:
                self._wait_because(f"{case.name}: {job.failure.detail}", once=f"{case.name}: {job.failure.kind}")
            return
        if job.state == "done":
            try:
                made = copy_results(self.folder, self.packer.volumes, case, self.work, job, self.ports.blobs)
            except (VoxportError, OSError) as error:
                self._end(case, "failed", str(error), id=job.id)
                self.left = self.at_once is not None
                return
            self._end(case, "done", made=made, id=job.id)
        else:
            self._end(case, "failed", job.failure.detail if job.failure else f"its job was {job.state}", id=job.id)
        if job.state == "done" or self.at_once is not None:
            with suppress(VoxportError, OSError):
                forget_job(job.id, OWNER, ports=self.ports)

    def _end(
        self, case: CaseFiles, state: CaseState, reason: str | None = None, *, made: Made | None = None, id: str = ""
    ) -> None:
        self._under_way.pop(id, None)
        self._shares.pop(id, None)
        self._results[case.name] = CaseResult(case.name, state, reason, () if made is None else made.warnings)
        self.listener.ended(self._results[case.name])
        self._table.put(case.name, () if made is None else made.rows)

    def _has(self, case: CaseFiles, hashes: Sequence[str]) -> bool:
        with suppress(InputError):
            return self._hashes(case) == hashes
        return False

    def _hashes(self, case: CaseFiles) -> list[str]:
        try:
            return [self._sha256(name) for name in case.files]
        except OSError as error:
            got = (error.strerror or "an error").lower()
            do = "check who may read it"
            raise InputError(case.name, expected="files that can be read", got=got, do=do) from None

    def _wait_because(self, reason: object, *, once: str | None = None) -> Literal[False]:
        """Warn that the batch waits, one time for each ``once``, or reason if it is None; returns False."""
        key = once or str(reason)
        if key not in self._warned:
            self._warned.add(key)
            self.listener.warn(f"waiting: {reason}")
        return False

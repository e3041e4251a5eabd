"""Blocks on the workers of a Dask cluster: one that runs, or one that is started here for the time of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Self

from ....domain.errors import UsageError, VoxportError
from ....ports.block_scheduler import BlockScheduler, BlockTask, Finished, Workbench
from ...arrays import package

_LOCAL = "local:"
# Dask has workers give memory back at every chance, and looks at their stacks a hundred times a second: each costs a
# tenth of their time.
_QUICK = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,
}
_WAIT_SECONDS = 0.2
_LOOK_SECONDS = 5.0
_FETCH_SECONDS = 30.0
_CONNECT_SECONDS = 20
_BENCH = "_voxport_bench"
_LOGGERS = ("distributed", "distributed.client")
_ONE_AT_A_TIME = "_voxport_lock"


@dataclass
class _Tried:
    """A block's attempts: how many were made, and what runs now, by key, with the time it was first seen to run."""

    attempts: int = 0
    running: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)


class DaskScheduler(BlockScheduler):
    """Tasks on Dask workers.

    Args:
        address: of a scheduler, e.g. ``tcp://host:8786``, or ``local:N`` for N processes that are started here.
        processors: of this machine, which ``local:N`` shares out.
        patience_seconds: a worker that has been on one block for so long is taken for hung: another one begins it.
    """

    def __init__(self, address: str, processors: int, patience_seconds: float = 1800.0) -> None:
        self._address, self._patience = address, patience_seconds
        self._count: int | None = None
        if address.startswith(_LOCAL):
            text = address.removeprefix(_LOCAL)
            self._count = int(text) if text.isdecimal() else 0
            if not 0 < self._count <= 1024:
                do = "give the number of processes, e.g. local:4"
                raise UsageError("cluster", expected="local:N", got=address[:40], do=do)
        elif "://" not in address:
            expected = "the address of a Dask scheduler such as tcp://host:8786, or local:N"
            raise UsageError("cluster", expected=expected, got=address[:80], do="correct it")
        self._processors = processors

    def __enter__(self) -> Self:
        distributed = package("distributed", "cluster", "cluster")
        self._closed: type[Exception] = distributed.client.ClosedClientError
        with ExitStack() as stack:
            stack.enter_context(_silenced())
            address = self._address
            if self._count is not None:
                loopback = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
                alone = {"n_workers": self._count, "threads_per_worker": 1, "memory_limit": 0}
                with package("dask", "cluster", "cluster").config.set(_QUICK):
                    address = stack.enter_context(distributed.LocalCluster(**alone, **loopback, silence_logs=50))
            try:
                self._client = stack.enter_context(
                    distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
                )
            except (OSError, ValueError, TimeoutError) as error:
                got = f"no answer ({type(error).__name__})"
                do = "start a scheduler (dask scheduler), or correct the address"
                raise UsageError(self._address, expected="a Dask scheduler", got=got, do=do) from None
            self._check_workers()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def threads(self) -> int | None:
        return None if self._count is None else max(1, self._processors // self._count)

    @property
    def dashboard(self) -> str | None:
        link = self._client.dashboard_link
        return str(link) if link else None

    @property
    def workers(self) -> int:
        return len(self._workers())

    def map(
        self, task: BlockTask, blocks: Sequence[int], *, attempts: int = 3, on_wait: Callable[[], object] = lambda: None
    ) -> Iterator[Finished]:
        done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        tried = {block: _Tried() for block in blocks}

        def begin(block: int, **where: Any) -> None:
            future = self._client.submit(_call, task, block, pure=False, **where)
            tried[block].attempts += 1
            tried[block].running[future.key] = future
            future.add_done_callback(lambda finished: done.put((block, finished)))

        with self._connected():
            for block in blocks:
                begin(block)
        looked = time.monotonic()
        try:
            while tried:
                on_wait()
                if self._client.status != "running":
                    raise self._gone()
                with self._connected():
                    if time.monotonic() - looked > min(_LOOK_SECONDS, self._patience):
                        looked = time.monotonic()
                        for block in self._hung(tried):
                            yield from self._instead(block, tried, attempts, begin)
                    with suppress(Empty):
                        block, future = done.get(timeout=_WAIT_SECONDS)
                        if block in tried and future.key in tried[block].running:
                            yield from self._taken(block, future, tried, attempts, begin)
        finally:
            with suppress(Exception):  # the scheduler may be gone
                self._client.cancel([future for one in tried.values() for future in one.running.values()], force=True)

    def _taken(
        self, block: int, future: Any, tried: dict[int, _Tried], attempts: int, begin: Callable[..., None]
    ) -> Iterator[Finished]:
        """Yield a block whose task has ended, unless it is tried again."""
        one = tried[block]
        del one.running[future.key]
        error: VoxportError | None = None
        result, where = None, {}
        if future.status == "finished":
            seconds = min(_FETCH_SECONDS, self._patience)
            try:
                result = future.result(timeout=seconds)
            except TimeoutError:  # the result is on a worker that hangs
                holders = self._client.who_has([future]).get(future.key, ())
                where = {"workers": [worker for worker in self._workers() if worker not in holders] or None}
                error = _unanswered(block, seconds, holders)
        elif future.status == "error":
            error = _error_of(block, future.exception())
        else:
            raise self._gone()
        if error is None or (one.attempts >= attempts and not one.running):
            self._client.cancel(list(one.running.values()), force=True)
            del tried[block]
            yield Finished(block, result, error)
        elif not one.running:
            begin(block, **where)

    def _hung(self, tried: Mapping[int, _Tried]) -> list[int]:
        """Return the blocks whose newest attempt has run for longer than the patience."""
        now, at_work = time.monotonic(), {key for keys in self._client.processing().values() for key in keys}
        for one in tried.values():
            for key in at_work & one.running.keys():
                one.seen.setdefault(key, now)
        newest = ((block, one, next(reversed(one.running), "")) for block, one in tried.items())
        return [block for block, one, key in newest if now - one.seen.get(key, now) > self._patience]

    def _instead(
        self, block: int, tried: dict[int, _Tried], attempts: int, begin: Callable[..., None]
    ) -> Iterator[Finished]:
        """Give a block to a worker that has not been on it, or give it up."""
        one = tried[block]
        busy = {worker for worker, keys in self._client.processing().items() if one.running.keys() & set(keys)}
        others = [worker for worker in self._workers() if worker not in busy]
        if one.attempts < attempts and others:
            begin(block, workers=others)
            return
        self._client.cancel(list(one.running.values()), force=True)
        del tried[block]
        yield Finished(block, error=_unanswered(block, self._patience, busy))

    def _workers(self) -> Mapping[str, Any]:
        with self._connected():
            found: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _check_workers(self) -> None:
        wide = [name for name, worker in self._workers().items() if worker["nthreads"] != 1]
        if wide:
            do = "start workers with --nthreads 1; the network takes the processors that VOXPORT_THREADS says"
            raise UsageError(
                wide[0], expected="a worker that has one task at a time", got="one that has several", do=do
            )

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Raise UsageError for whatever Dask raises where the scheduler does not answer."""
        try:
            yield
        except (OSError, CancelledError, self._closed):
            raise self._gone() from None

    def _gone(self) -> UsageError:
        do = "start it, and run again: what was finished is kept"
        return UsageError(self._address, expected="the scheduler", got="no connection to it any more", do=do)


@contextmanager
def _silenced() -> Iterator[None]:
    """Leave it to voxport to say that a scheduler is gone; Dask logs it with a traceback."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _call(task: BlockTask, block: int) -> Any:
    """Run a task in a worker; tasks of one worker run one after the other."""
    from distributed import get_worker

    worker = get_worker()
    lock = worker.__dict__.setdefault(_ONE_AT_A_TIME, Lock())
    with lock:
        return task(worker.__dict__.setdefault(_BENCH, Workbench()), block)


def _unanswered(block: int, seconds: float, workers: Iterable[str]) -> VoxportError:
    expected, got = f"an answer within {seconds:.0f} s", f"none from {', '.join(sorted(workers)) or 'a worker'}"
    return VoxportError(f"block {block}", expected=expected, got=got, do="see what that worker does, and run again")


def _error_of(block: int, error: BaseException | None) -> VoxportError:
    if isinstance(error, VoxportError):
        return error
    name = type(error).__name__
    got = "workers that died with it" if name == "KilledWorker" else f"{name}: {str(error)[:200]}".replace("\n", " ")
    do = "see the workers' logs for the reason, e.g. too little memory; then run again"
    return VoxportError(f"block {block}", expected="a worker that finishes it", got=got, do=do)

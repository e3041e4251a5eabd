"""The watch of a worker: heartbeats, jobs of dead workers, and jobs that DBOS lost."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from .database import place_errors, workers
from .ledger import Ledger

_log = logging.getLogger("voxport.jobs")
_BEATS_A_LEASE = 6
_LOOKED_UP_AT_ONCE = 500
_LATE_SECONDS = 5.0


class Watch:
    """The watch of one worker. ``doing`` returns the workflows, ``JOB.ROUND``, that its process runs now."""

    def __init__(self, ledger: Ledger, worker: str, slots: int, doing: Callable[[], Collection[str]]) -> None:
        self._ledger, self._worker, self._slots, self._doing = ledger, worker, slots, doing
        self._steady_since: float | None = None
        self._suspects: frozenset[str] = frozenset()

    def keep(self, stop: threading.Event) -> None:
        """Beat and check other workers until ``stop`` is set, also while the database is away."""
        lease = self._ledger.limits.lease_seconds
        looked, was_away = 0.0, False
        while not stop.wait(lease / _BEATS_A_LEASE):
            try:
                gone = self.beat()
                for worker in gone:
                    taken = self._ledger.take_from(worker)
                    _log.warning("worker %s is gone; its %d jobs go on elsewhere", worker, len(taken))
                if gone or was_away or time.monotonic() - looked > lease:
                    looked = time.monotonic()
                    self.find_stranded()
                was_away = False
            except OSError as error:
                if not was_away:
                    _log.warning("%s; watching other workers resumes when it is back", error)
                self._steady_since, was_away = None, True
            except Exception:  # noqa: BLE001 - the watch must outlive any failure
                _log.exception("watching other workers goes on")

    def beat(self) -> list[str]:
        """Record a beat of this worker; return the ids of dead workers.

        After the database was away, the first worker to reach it finds no recent beats of others. Silence therefore
        counts only once this worker has itself beaten for a whole lease.
        """
        database, lease = self._ledger.database, self._ledger.limits.lease_seconds
        with database.writing() as connection:
            now = database.now(connection)
            values = {"place": place(), "pid": os.getpid(), "slots": self._slots, "beat": now}
            if not connection.execute(workers.update().where(workers.c.id == self._worker).values(values)).rowcount:
                connection.execute(workers.insert().values(id=self._worker, **values))
            others = connection.execute(sa.select(workers).where(workers.c.id != self._worker)).all()
        self._steady_since = self._steady_since or time.monotonic()
        steady = time.monotonic() - self._steady_since > lease
        return [o.id for o in others if is_gone(o.place, o.pid) or (steady and o.beat < now - lease)]

    def find_stranded(self) -> None:
        """Enqueue again the jobs whose worker died, or lost the database, while DBOS gave them to it."""
        alive, waiting = self._ledger.alive(), self._ledger.waiting()
        suspects: set[str] = set()
        for at in range(0, len(waiting), _LOOKED_UP_AT_ONCE):
            some = {f"{id}.{round}": (id, round, due) for id, round, due in waiting[at : at + _LOOKED_UP_AT_ONCE]}
            with place_errors():
                client = self._ledger.database.client
                known = client.list_workflows(workflow_ids=list(some), load_input=False, load_output=False)
            for workflow in known:
                name, is_here = workflow.workflow_id, workflow.executor_id == self._worker
                if workflow.status == "PENDING" and is_here and name not in self._doing():
                    # DBOS gave it to this process, which did not receive it because the database failed, or has it
                    # between two threads: it is lost if found so twice
                    suspects.add(name)
                    held = name not in self._suspects
                elif workflow.status == "DELAYED":  # by another machine's clock, which may be wrong
                    held = some[name][2] < _LATE_SECONDS
                else:
                    held = workflow.status == "ENQUEUED" or (
                        workflow.status == "PENDING" and workflow.executor_id in alive
                    )
                if held:
                    del some[name]
            for id, round, _ in some.values():
                self._ledger.hand_out_again(id, round)
        self._suspects = frozenset(suspects)

    def leave(self) -> None:
        """Return the jobs of this worker to the queue and remove it."""
        self._ledger.take_from(self._worker)
        self.find_stranded()


def place() -> str:
    """Return the name of this machine, of its boot, and of its process id namespace."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(known)


def is_gone(worker_place: str, pid: int) -> bool:
    """Return whether a process is known to have ended; False for another machine or namespace."""
    if worker_place != place():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False

"""The ledger of jobs: each change is one transaction with its enqueueing in DBOS."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from dbos import EnqueueOptions

from ....domain.errors import BusyError, UnknownJobError
from ....domain.job import (
    JOB_STATES,
    Job,
    JobCase,
    JobState,
    abandoned,
    asked_to_cancel,
    begun,
    key_taken,
    median_seconds,
    not_ended,
    tried_again,
    unknown_job,
    wait_seconds,
)
from ....domain.plain import plain
from ....ports.job_queue import QueueLimits, QueueStats
from .database import Database, columns_of, ends, job_of, jobs, place_errors, workers
from .library import APPLICATION, QUEUE, VERSION, WORKFLOW

# DBOS takes the lowest priority first, and the oldest of equals. Seconds since November 2023, which fit 32 bits, keep
# the ledger's order for retried jobs too
_FIRST, _USUAL_FROM = 1, 1_700_000_000
_ORDER = (jobs.c.priority, jobs.c.queued_since, jobs.c.seq)
_WORTH_AVERAGING = 50
_SUBMITTING = sa.text("SELECT pg_advisory_xact_lock(8209348)")


class Ledger:
    """Jobs in the database, as callers and workers use them. See JobQueue for the methods without a docstring."""

    def __init__(self, database: Database, limits: QueueLimits) -> None:
        self.database, self.limits = database, limits

    def submit(self, case: JobCase, owner: str, *, key: str | None = None) -> Job:
        id, written = str(uuid.uuid4()), False
        try:
            with self.database.writing() as connection:
                if not self.database.is_sqlite:  # one submission at a time checks keys and length
                    connection.execute(_SUBMITTING)
                same = sa.and_(jobs.c.owner == owner, jobs.c.request_key == key)
                row = None if key is None else connection.execute(sa.select(jobs).where(same)).first()
                if row is not None:
                    if not job_of(row).case.same_work(case):
                        raise key_taken(key or "")
                    return self._placed(connection, row)
                self._check_room(connection)
                self._add(connection, Job(id, owner, case, self.database.now(connection)), key)
                job = self._placed(connection, self._row(connection, id, None))
                written = True
            return job
        except ConnectionError:
            if written:  # the commit failed, yet the job may exist
                with suppress(UnknownJobError):
                    return self.get(id)
            raise

    def get(self, id: str, owner: str | None = None) -> Job:
        with self.database.reading() as connection:
            return self._placed(connection, self._row(connection, id, owner, lock=False))

    def list(
        self,
        owner: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 100,
        *,
        ended_before: float | None = None,
    ) -> tuple[Job, ...]:
        ahead = sa.func.row_number().over(partition_by=jobs.c.state, order_by=_ORDER) - 1
        queued = sa.select(jobs.c.seq, ahead.label("ahead")).where(jobs.c.state == "queued").subquery()
        query = sa.select(jobs, queued.c.ahead).outerjoin(queued, queued.c.seq == jobs.c.seq)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if states is not None:
            query = query.where(jobs.c.state.in_(list(states)))
        if ended_before is not None:
            query = query.where(jobs.c.ended < ended_before)
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(jobs.c.seq.desc()).limit(limit))
            return tuple(job_of(row, row.ahead) for row in rows)

    def cancel(self, id: str, owner: str | None = None) -> Job:
        return self._changed(id, owner, asked_to_cancel)

    def retry(self, id: str, owner: str | None = None) -> Job:
        return self._changed(id, owner, lambda job, now: tried_again(job))  # noqa: ARG005

    def forget(self, id: str, owner: str | None = None) -> None:
        with self.database.reading() as connection:
            row = self._row(connection, id, owner, lock=False)
        _check_ended(row)
        # DBOS's rows first: deletion can be repeated while ours exists. A job retried meanwhile has a later round
        with place_errors():
            self.database.client.delete_workflows([f"{id}.{number}" for number in range(row.round + 1)])
        with self.database.writing() as connection:
            _check_ended(self._row(connection, id, owner))
            connection.execute(jobs.delete().where(jobs.c.id == id))

    def stats(self) -> QueueStats:
        with self.database.reading() as connection:
            now = self.database.now(connection)
            by_state = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
            counted = {row[0]: row[1] for row in connection.execute(by_state)}
            queued = sa.select(sa.func.min(jobs.c.submitted)).where(jobs.c.state == "queued")
            oldest = connection.execute(queued).scalar()
            alive = connection.execute(
                sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(workers.c.slots), 0)).where(
                    workers.c.beat > now - self.limits.lease_seconds
                )
            ).one()
            typical = self._typical_seconds(connection)
            ended = {row.state: int(row.total) for row in connection.execute(sa.select(ends))}
        counts: dict[JobState, int] = {state: counted.get(state, 0) for state in JOB_STATES}
        waited = 0.0 if oldest is None else max(0.0, now - oldest)
        return QueueStats(counts, waited, typical, int(alive[0]), int(alive[1]), ended)

    def begin(self, id: str, round: int, worker: str) -> Job | None:
        """Begin a queued job; return None if its round has changed."""
        with self.database.writing() as connection:
            row = connection.execute(self._locked(jobs.c.id == id)).first()
            if row is None or row.round != round:
                return None
            if row.state == "running" and row.worker == worker:  # begun before, but the answer was lost
                return job_of(row)
            if row.state != "queued":
                return None
            job = begun(job_of(row), self.database.now(connection))
            connection.execute(jobs.update().where(jobs.c.seq == row.seq).values(**columns_of(job), worker=worker))
            return job

    def settle(self, id: str, attempt: int, change: Callable[[Job, float], Job], *, delayed: bool) -> Job | None:
        """Apply the end of a run; return None if the job no longer belongs to this attempt."""
        with self.database.writing() as connection:
            row = connection.execute(self._locked(jobs.c.id == id)).first()
            if row is None or not job_of(row).held_by(attempt):
                return None
            job = change(job_of(row), self.database.now(connection))
            wait = wait_seconds(job.attempts, self.limits.backoff_seconds) if delayed else None
            self._save(connection, row, job, first=not delayed, wait=wait)
            return job

    def progress(self, id: str, attempt: int, tiles: tuple[int, int] | None) -> bool:
        """Write tiles done and their total, if given; return whether the run should continue."""
        held = sa.and_(jobs.c.id == id, jobs.c.state == "running", jobs.c.attempts == attempt)
        if tiles is not None:
            with self.database.writing() as connection:
                connection.execute(jobs.update().where(held).values(tiles_done=tiles[0], tiles_total=tiles[1]))
        with self.database.reading() as connection:
            row = connection.execute(sa.select(jobs.c.cancelling).where(held)).first()
            return row is not None and not row.cancelling

    def hand_out_again(self, id: str, round: int) -> None:
        """Enqueue a queued job in DBOS again, with priority, if its round is still this one."""
        with self.database.writing() as connection:
            row = connection.execute(self._locked(jobs.c.id == id)).first()
            if row is not None and row.state == "queued" and row.round == round:
                self._redispatch(connection, row, first=True, wait=None)

    def take_from(self, worker: str) -> tuple[str, ...]:
        """Remove a worker and queue its jobs again; return their ids."""
        with self.database.writing() as connection:
            lost = connection.execute(self._locked(jobs.c.worker == worker, jobs.c.state == "running")).all()
            now = self.database.now(connection)
            for row in lost:
                job = abandoned(job_of(row), now, attempts_allowed=self.limits.failed_attempts)
                self._save(connection, row, job, first=True)
            connection.execute(workers.delete().where(workers.c.id == worker))
        return tuple(row.id for row in lost)

    def waiting(self) -> tuple[tuple[str, int, float], ...]:
        """Return id, round and seconds since due of all queued jobs; negative seconds during a backoff."""
        with self.database.reading() as connection:
            now = self.database.now(connection)
            query = sa.select(jobs.c.id, jobs.c.round, jobs.c.queued_since).where(jobs.c.state == "queued")
            return tuple((row.id, row.round, now - row.queued_since) for row in connection.execute(query))

    def alive(self) -> frozenset[str]:
        """Return the ids of all workers in the table."""
        with self.database.reading() as connection:
            return frozenset(connection.execute(sa.select(workers.c.id)).scalars())

    def _changed(self, id: str, owner: str | None, change: Callable[[Job, float], Job]) -> Job:
        """Apply a change to a job; enqueue it again if the change queues it."""
        with self.database.writing() as connection:
            row = self._row(connection, id, owner)
            self._save(connection, row, change(job_of(row), self.database.now(connection)))
            return self._placed(connection, self._row(connection, id, None))

    def _add(self, connection: sa.Connection, job: Job, key: str | None) -> None:
        values = columns_of(job) | {"id": job.id, "owner": job.owner, "request_key": key, "submitted": job.submitted}
        values |= {"job_case": json.dumps(plain(job.case)), "priority": 1, "queued_since": job.submitted, "round": 0}
        connection.execute(jobs.insert().values(values))
        self._dispatch(connection, job.id, 0, _usual(job.submitted))

    def _check_room(self, connection: sa.Connection) -> None:
        waiting = sa.select(sa.func.count()).where(jobs.c.state == "queued")
        if connection.execute(waiting).scalar_one() >= self.limits.length:
            retry = self._typical_seconds(connection) or 1.0
            expected = f"at most {self.limits.length} jobs that wait"
            raise BusyError("queue", expected=expected, got="one more", retry_after_seconds=retry)

    def _typical_seconds(self, connection: sa.Connection) -> float | None:
        done = sa.select(jobs.c.started, jobs.c.ended).where(jobs.c.state == "done")
        latest = connection.execute(done.order_by(jobs.c.ended.desc()).limit(_WORTH_AVERAGING))
        return median_seconds((row.started, row.ended) for row in latest)

    def _locked(self, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        # SQLite, whose transactions exclude each other, ignores the lock
        return sa.select(jobs).where(*where).with_for_update()

    def _row(self, connection: sa.Connection, id: str, owner: str | None, *, lock: bool = True) -> sa.Row[Any]:
        if not (id.isascii() and id.isprintable()):  # Postgres refuses others, and no job has one
            raise unknown_job(id)
        query = self._locked(jobs.c.id == id) if lock else sa.select(jobs).where(jobs.c.id == id)
        row = connection.execute(query).first()
        if row is None or owner not in (None, row.owner):
            raise unknown_job(id)
        return row

    def _placed(self, connection: sa.Connection, row: sa.Row[Any]) -> Job:
        if row.state != "queued":
            return job_of(row)
        before = sa.tuple_(*_ORDER) < sa.tuple_(*map(sa.literal, (row.priority, row.queued_since, row.seq)))
        ahead = sa.select(sa.func.count()).where(jobs.c.state == "queued", before)
        return replace(job_of(row), position=connection.execute(ahead).scalar_one())

    def _save(
        self, connection: sa.Connection, row: sa.Row[Any], job: Job, *, first: bool = False, wait: float | None = None
    ) -> None:
        values = columns_of(job) | ({} if job.state == "running" else {"worker": None})
        connection.execute(jobs.update().where(jobs.c.seq == row.seq).values(values))
        if job.has_ended and not job_of(row).has_ended:
            connection.execute(ends.update().where(ends.c.state == job.state).values(total=ends.c.total + 1))
        if job.state == "queued" and row.state != "queued":
            self._redispatch(connection, row, first=first, wait=wait)

    def _redispatch(self, connection: sa.Connection, row: sa.Row[Any], *, first: bool, wait: float | None) -> None:
        number, since = row.round + 1, self.database.now(connection) + (wait or 0.0)
        values = {"round": number, "priority": 0 if first else 1, "queued_since": since}
        connection.execute(jobs.update().where(jobs.c.seq == row.seq).values(values))
        self._dispatch(connection, row.id, number, _FIRST if first else _usual(since), wait)

    def _dispatch(
        self, connection: sa.Connection, id: str, number: int, priority: int, wait: float | None = None
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": f"{id}.{number}",
            "app_version": VERSION,
            "priority": priority,
            "application_name": APPLICATION,
        }
        if wait is not None:
            options["delay_seconds"] = wait
        self.database.client.enqueue_in_transaction(connection, options, id, number)


def _check_ended(row: sa.Row[Any]) -> None:
    if not job_of(row).has_ended:
        raise not_ended(job_of(row))


def _usual(since: float) -> int:
    """Return DBOS's priority for a job queued since a time, in seconds since 1970."""
    return max(_FIRST + 1, int(since) - _USUAL_FROM)

"""DbosJobQueue keeps the JobQueue contract on SQLite, and what DBOS lost sight of is handed out again."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from dbos import DBOSClient
from dbos._serialization import DBOSDefaultSerializer, DefaultSerializer
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.adapters.jobs.dbos.database import Database
from voxport.adapters.jobs.dbos.ledger import Ledger
from voxport.adapters.jobs.dbos.library import OnceAMinute
from voxport.adapters.jobs.dbos.watch import Watch, is_gone, place
from voxport.domain.errors import OutputError, UsageError
from voxport.ports.job_queue import Attempt, JobQueue, QueueLimits, Results
from voxport.testing.job_queue import (
    Gate,
    JobQueueContract,
    example_case,
    run_to_the_end,
    wait_until,
    working,
)

NOBODY = "postgresql://nobody@127.0.0.1:1/jobs"


class TestSqlite(JobQueueContract):
    @pytest.fixture
    def surroundings(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.count = 0

    def make_queue(self, limits: QueueLimits) -> JobQueue:
        self.count += 1
        return DbosJobQueue(f"sqlite:///{self.folder}/jobs-{self.count}.sqlite", limits)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.fixture
def sql(tmp_path: Path) -> Callable[[str], list[tuple[object, ...]]]:
    """Runs a statement on the database, behind the queue's back."""

    def run(statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite", timeout=10)) as connection, connection:
            return connection.execute(statement).fetchall()

    return run


class Code:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)


def test_a_pickle_in_the_database_is_never_unpickled(
    url: str, sql: Callable[[str], list[tuple[object, ...]]], tmp_path: Path
) -> None:
    code = base64.b64encode(pickle.dumps({"args": (Code(tmp_path / "ran"),), "kwargs": {}})).decode()
    assert pickle.loads(base64.b64decode(code))
    (tmp_path / "ran").rmdir()
    with closing(DbosJobQueue(url)) as queue:
        job, good = (queue.submit(example_case(number), "ada") for number in range(2))
        assert sql("SELECT DISTINCT serialization FROM workflow_status") == [("voxport_json",)]
        where = f"WHERE workflow_uuid LIKE '{job.id}.%'"
        sql(f"UPDATE workflow_status SET serialization = 'py_pickle' {where}")
        sql(f"UPDATE workflow_input SET inputs = '{code}' {where}")
        assert sql(f"SELECT inputs FROM workflow_input {where}") == [(code,)]
        assert sql(f"SELECT count(*) FROM workflow_status {where} AND serialization = 'py_pickle'") == [(1,)]
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(good.id).state == "done")
    assert not (tmp_path / "ran").exists()


def test_other_programs_of_the_process_keep_the_serializer_that_dbos_gives_them(url: str) -> None:
    content = {"a set, which no JSON holds": {1, 2}}
    with closing(DbosJobQueue(url)) as queue, working(queue, run_to_the_end):
        job = queue.submit(example_case(), "ada")
        wait_until(lambda: queue.get(job.id).state == "done")
        assert DefaultSerializer().deserialize(DefaultSerializer().serialize(content)) == content
        assert DBOSDefaultSerializer.deserialize(DBOSDefaultSerializer.serialize(content)) == content


# Workers


def test_a_worker_waits_for_its_database(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file in the folder's place")
    with closing(DbosJobQueue(f"sqlite:///{tmp_path}/folder/jobs.sqlite")) as queue, working(queue, run_to_the_end):
        with pytest.raises(ConnectionError):
            queue.submit(example_case(), "ada")
        (tmp_path / "folder").unlink()
        job = queue.submit(example_case(), "ada")
        wait_until(lambda: queue.get(job.id).state == "done")


def test_a_worker_that_is_stopped_while_its_database_is_away_stops(caplog: pytest.LogCaptureFixture) -> None:
    with closing(DbosJobQueue(NOBODY)) as queue, working(queue, run_to_the_end):
        wait_until(lambda: "trying again" in caplog.text)
    assert caplog.text.count("trying again") == 1


def test_a_process_runs_jobs_once(url: str) -> None:
    with closing(DbosJobQueue(url)) as queue, working(queue, run_to_the_end):
        wait_until(lambda: queue.stats().workers == 1)
        with pytest.raises(RuntimeError, match="already"):
            queue.work(run_to_the_end, 1, threading.Event())


def test_jobs_run_in_the_order_of_their_positions_also_those_that_were_tried_again(url: str) -> None:
    gate, order = Gate(), list[str]()
    with closing(DbosJobQueue(url, QueueLimits(backoff_seconds=2.0))) as queue:
        first = queue.submit(example_case(0), "ada")

        def handler(attempt: Attempt) -> Results:
            if attempt.job.id == first.id and attempt.job.attempts == 1:
                raise OSError(28, "No space left on device")
            order.append(attempt.job.id)
            return gate(attempt)

        with working(queue, handler):
            wait_until(lambda: queue.get(first.id).failure is not None)
            holding = queue.submit(example_case(1), "ada")
            wait_until(lambda: queue.get(holding.id).state == "running")
            later = [queue.submit(example_case(n), "ada") for n in (2, 3)]  # while the first one may not be tried yet
            line = [job.id for job in (*later, first)]
            assert [queue.get(id).position for id in line] == [0, 1, 2]
            with closing_client(url) as client:
                wait_until(lambda: client.list_workflows(status="DELAYED") == [])
            gate.opened.set()
            wait_until(lambda: queue.get(first.id).state == "done")
    assert order == [holding.id, *line]


@contextmanager
def closing_client(url: str) -> Iterator[DBOSClient]:
    client = DBOSClient(system_database_url=url)
    yield client
    client.destroy()


def test_what_the_owner_is_not_told_is_in_the_log_under_the_jobs_id(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "voxport.jobs")
    errors = (OutputError.cannot_write("blobs", "no space left on device"), ZeroDivisionError("of a secret"))

    def handler(attempt: Attempt) -> Results:
        raise errors[attempt.job.attempts - 1]

    with (
        closing(DbosJobQueue(url, QueueLimits(failed_attempts=1, backoff_seconds=0.01))) as queue,
        working(queue, handler),
    ):
        job = queue.submit(example_case(), "ada")
        wait_until(lambda: queue.get(job.id).state == "parked")
    told = [(r.levelname, r.exc_info is not None) for r in caplog.records if job.id in r.getMessage()]
    assert told == [
        ("INFO", False),  # begun
        ("INFO", False),  # tried again
        ("INFO", False),
        ("ERROR", True),
        ("ERROR", False),  # dead-lettered
    ]
    assert "dead-lettered: an unexpected ZeroDivisionError" in caplog.records[-1].getMessage()


# What got lost on the way


def test_a_job_that_waits_here_but_not_in_dbos_is_handed_out_again(url: str) -> None:
    """As when a worker dies, or loses the database, between taking it from DBOS and taking it up."""
    with closing(DbosJobQueue(url, QueueLimits(lease_seconds=1.0))) as queue:
        lost, other = (queue.submit(example_case(number), "ada") for number in range(2))
        with closing_client(url) as client:
            client.cancel_workflow(f"{lost.id}.0")
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(other.id).state == "done")
            wait_until(lambda: queue.get(lost.id).state == "done")
        assert queue.get(lost.id).attempts == 1


def test_a_job_that_waits_by_a_wrong_clock_is_handed_out_again(
    url: str, sql: Callable[[str], list[tuple[object, ...]]]
) -> None:
    with closing(DbosJobQueue(url, QueueLimits(lease_seconds=1.0))) as queue:
        job = queue.submit(example_case(), "ada")
        sql("UPDATE workflow_status SET status = 'DELAYED', delay_until_epoch_ms = 4000000000000")
        sql("UPDATE voxport_jobs SET lined = lined - 10")
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(job.id).state == "done")


def test_a_job_that_this_worker_claimed_and_never_began_is_handed_out_again(
    url: str, sql: Callable[[str], list[tuple[object, ...]]]
) -> None:
    with closing(DbosJobQueue(url, QueueLimits(lease_seconds=1.0))) as queue:
        gate = Gate()
        with working(queue, gate):
            held = queue.submit(example_case(0), "ada")
            wait_until(lambda: queue.get(held.id).state == "running")
            lost = queue.submit(example_case(1), "ada")
            sql(
                "UPDATE workflow_status SET status = 'PENDING', executor_id = (SELECT id FROM voxport_workers)"
                f" WHERE workflow_uuid = '{lost.id}.0'"
            )
            gate.opened.set()
            wait_until(lambda: queue.get(lost.id).state == "done")
        assert queue.get(lost.id).attempts == 1
        assert queue.get(held.id).attempts == 1


@contextmanager
def lost_at_the_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next transaction is committed, and the database is lost before it can say so."""
    writing = database.writing

    @contextmanager
    def committed_unheard() -> Iterator[object]:
        with writing() as connection:
            yield connection
        monkeypatch.undo()
        raise ConnectionError("the job database: lost")

    monkeypatch.setattr(database, "writing", committed_unheard)
    yield


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with closing(DbosJobQueue(url)) as queue:
        queue.list()
        yield queue


def test_a_job_that_is_in_the_queue_is_not_called_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with lost_at_the_end(ledger.database, monkeypatch):
        job = ledger.submit(example_case(), "ada")
    assert [kept.id for kept in ledger.list()] == [job.id]


def test_a_run_whose_beginning_was_not_heard_of_is_begun_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ledger.submit(example_case(), "ada")
    with lost_at_the_end(ledger.database, monkeypatch), pytest.raises(ConnectionError):
        ledger.begin(job.id, 0, "me")
    begun = ledger.begin(job.id, 0, "me")
    assert begun is not None
    assert (begun.state, begun.attempts) == ("running", 1)
    assert ledger.begin(job.id, 0, "another") is None
    assert ledger.begin(job.id, 1, "me") is None


def test_a_job_tried_again_while_it_is_forgotten_stays(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ledger.submit(example_case(), "ada")
    ledger.cancel(job.id)
    delete = ledger.database.client.delete_workflows

    def meanwhile(workflow_ids: list[str]) -> None:
        ledger.retry(job.id)
        delete(workflow_ids)

    monkeypatch.setattr(ledger.database.client, "delete_workflows", meanwhile)
    with pytest.raises(UsageError, match="has ended, got one that is queued"):
        ledger.forget(job.id)
    watch = Watch(ledger, "me", 1, list)
    watch.find_stranded()
    assert ledger.begin(job.id, 1, "me") is not None  # its new hand-over is in DBOS


# What DBOS says, and to whom


def test_dbos_says_a_thing_once_a_minute_and_in_one_line() -> None:
    once = OnceAMinute()
    records = [
        logging.LogRecord("dbos", logging.WARNING, "dbos/_queue.py", line, "lost: %s\nmore", ("it",), None)
        for line in (1, 1, 2)
    ]
    assert [once.filter(record) for record in records] == [True, False, True]
    assert records[0].getMessage() == "lost: it"
    away = "polling: Traceback (most recent call last):\n (psycopg.OperationalError) connection refused"
    assert not once.filter(logging.LogRecord("dbos", logging.WARNING, "dbos/_queue.py", 3, away, None, None))


_WATCHED_WORKER = """
import logging, sys, threading
calls = []
sys.addaudithook(lambda event, given: calls.append(event) if event.startswith("socket.") else None)
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("asyncio").setLevel(logging.WARNING)
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.testing.job_queue import example_case, run_to_the_end, wait_until, working
queue = DbosJobQueue(sys.argv[1])
with working(queue, run_to_the_end):
    job = queue.submit(example_case(), "ada")
    wait_until(lambda: queue.get(job.id).state == "done")
queue.close()
assert logging.getLogger("dbos").propagate
print([call for call in calls if call in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind")])
"""


def test_dbos_is_quiet_and_calls_nobody_even_where_it_would_take_this_for_its_makers_cloud(url: str) -> None:
    theirs = {
        "DBOS__CLOUD": "true",
        "DBOS_APP_NAME": "theirs",
        "DBOS__CONDUCTOR_APP_NAME": "theirs",
        "DBOS__CONDUCTOR_KEY": "key",
        "DBOS__CONDUCTOR_URL": "ws://127.0.0.1:9/",
        "DBOS__OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/",
    }
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED_WORKER, url],
        env=os.environ | theirs,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    theirs_said = [line for line in done.stderr.splitlines() if not line.startswith("INFO:voxport.jobs:")]
    assert (done.returncode, theirs_said) == (0, [])
    assert done.stdout == "[]\n"


def test_a_process_that_is_not_seen_from_here_is_not_taken_for_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert is_gone(place(), ended.pid)
    assert not is_gone("another machine", ended.pid)
    assert not is_gone(place(), os.getpid())

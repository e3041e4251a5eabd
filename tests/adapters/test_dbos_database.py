"""The database of DbosJobQueue: made at the first use, said to be away within seconds, and used when it is there."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.adapters.jobs.dbos.database import Database
from voxport.domain.errors import UsageError
from voxport.testing.job_queue import example_case, run_to_the_end, wait_until, working

NOBODY = "postgresql://nobody@127.0.0.1:1/jobs"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite"


def test_nothing_is_touched_before_the_first_use(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/folder/jobs.sqlite", NOBODY):
        queue = DbosJobQueue(url)
        queue.close()
        queue.close()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_and_the_file_are_made_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(DbosJobQueue(f"sqlite:///{tmp_path}/new/folder/jobs.sqlite")) as queue:
            queue.submit(example_case(), "ada")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "folder").iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) == 0o700
    assert {"jobs.sqlite", "jobs.sqlite-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_database_that_cannot_be_reached_is_said_so_at_each_call_and_used_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file in the folder's place")
    with closing(DbosJobQueue(f"sqlite:///{tmp_path}/folder/jobs.sqlite")) as queue:
        for _ in range(2):
            with pytest.raises(ConnectionError, match=r"the job database: .*jobs.sqlite: not a directory|file exists"):
                queue.submit(example_case(), "ada")
            with pytest.raises(ConnectionError):
                queue.stats()
        (tmp_path / "folder").unlink()
        assert queue.list() == ()
        assert queue.submit(example_case(), "ada").position == 0


def test_what_is_no_database_is_said_so_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"something else, of some length" * 100)
    with (
        closing(DbosJobQueue(f"sqlite:///{tmp_path}/jobs.sqlite")) as queue,
        pytest.raises(ConnectionError, match="the job database: file is not a database"),
    ):
        queue.list()


@pytest.mark.parametrize("silent", [False, True])
def test_many_callers_of_a_host_that_refuses_or_says_nothing_do_not_wait_for_each_other(silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the system takes the call, and nobody ever answers it
        url = f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/jobs" if silent else NOBODY
        with closing(DbosJobQueue(url)) as queue, ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(queue.list) for _ in range(8)]
            assert wait(calls, timeout=10).not_done == set()
            said = [call.exception() for call in calls]
    assert {type(error) for error in said} == {ConnectionError}
    assert all(("timeout" if silent else "refused") in str(error) for error in said)


def test_a_locked_database_is_said_so_within_seconds(url: str, tmp_path: Path) -> None:
    with closing(DbosJobQueue(url)) as queue:
        job = queue.submit(example_case(), "ada")
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ConnectionError, match="locked"):
                queue.submit(example_case(1), "ada")
            assert queue.get(job.id).state == "queued"  # who reads does not wait
            other.rollback()
        assert len(queue.list()) == 1


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("nonsense", "no URL"),
        ("mysql://ada:secret@host/jobs", r"mysql://ada:\*\*\*@host/jobs"),
        ("sqlite://", "which names none"),
        ("sqlite:///:memory:", "which names none"),
        ("postgresql://ada:secret@host", "which names none"),
    ],
)
def test_a_url_of_no_database_is_a_usage_error_without_its_password(url: str, got: str) -> None:
    with pytest.raises(UsageError, match=got) as refused:
        DbosJobQueue(url)
    assert "secret" not in str(refused.value)


def test_what_is_asked_of_postgres_in_the_url_is_kept() -> None:
    database = Database("postgres://ada:secret@host/jobs?connect_timeout=30&sslmode=require")
    assert "connect_timeout=30&" in database.url
    assert "sslmode=require" in database.url
    assert "tcp_user_timeout=3000" in database.url
    assert "ada:secret@host" in database.url
    assert database.engine.url.drivername == "postgresql+psycopg"


def test_processes_that_open_a_new_database_at_once_all_can(url: str) -> None:
    code = (
        "import sys\nfrom voxport.adapters.jobs.dbos import DbosJobQueue\n"
        "from voxport.testing.job_queue import example_case\n"
        "queue = DbosJobQueue(sys.argv[1])\nsys.stdin.readline()\nqueue.submit(example_case(), 'ada')"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [""] * 4
    with closing(DbosJobQueue(url)) as queue:
        assert len(queue.list()) == 4


def test_a_queue_that_is_not_to_create_a_database_leaves_none_behind(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "jobs.sqlite"
    with (
        closing(DbosJobQueue(f"sqlite:///{path}", create=False)) as queue,
        pytest.raises(ConnectionError, match="no such file"),
    ):
        queue.list()
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with (
        closing(DbosJobQueue(f"sqlite:///{empty}", create=False)) as queue,
        pytest.raises(ConnectionError, match="no jobs are kept"),
    ):
        queue.list()
    with closing(sqlite3.connect(empty)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_queue_that_creates_nothing_does_all_else_where_jobs_are_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    with closing(DbosJobQueue(url)) as queue, closing(DbosJobQueue(url, create=False)) as operators:
        job = queue.submit(example_case(), "ada")
        assert [found.id for found in operators.list()] == [job.id]
        assert operators.cancel(job.id).state == "cancelled"
        assert operators.retry(job.id).state == "queued"
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(job.id).state == "done")

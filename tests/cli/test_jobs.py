"""``voxport jobs``: what operators see and do, on a queue that is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.domain.errors import InputError
from voxport.domain.job import Job
from voxport.ports.job_queue import Attempt, JobQueue, Results
from voxport.testing.job_queue import Gate, example_case, results_of, wait_until, working

from .conftest import Command

Operator = Callable[..., CompletedProcess[str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.fixture
def jobs(voxport: Command, url: str) -> Operator:
    return lambda *arguments: voxport("jobs", *arguments, env={"VOXPORT_JOBS__DATABASE": url})


@pytest.fixture
def queue(url: str) -> Iterator[JobQueue]:
    with closing(DbosJobQueue(url)) as queue:
        yield queue


def submit(queue: JobQueue, number: int, owner: str = "ada") -> Job:
    return queue.submit(example_case(number), owner)


def test_jobs_of_all_owners_are_listed_the_latest_first(jobs: Operator, queue: JobQueue) -> None:
    first, second = submit(queue, 0), submit(queue, 1, "bob")

    def handler(attempt: Attempt) -> Results:
        attempt.report(2, 4)
        if attempt.job.id == second.id:
            raise InputError("[scan].nii", expected="a volume", got=" ".join(["none"] * 40), do="send one")
        return results_of(attempt.job)

    with working(queue, handler):
        wait_until(lambda: all(queue.get(job.id).has_ended for job in (first, second)))
    waiting = submit(queue, 2)
    listed = jobs("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    head, *rows = [line.split() for line in listed.stdout.splitlines()]
    assert head == ["id", "state", "model", "input", "tiles", "since", "attempts", "problem"]
    assert [row[:4] for row in rows] == [
        [job.id[:8], state, "vessels:1.0.0", f"scan-{number}.nii.gz"]
        for job, state, number in ((waiting, "queued", 2), (second, "failed", 1), (first, "done", 0))
    ]
    assert rows[2][4] == "4/4"
    assert rows[1][-1] == "..."
    assert "[scan].nii: expected a volume" in listed.stdout
    chosen = json.loads(jobs("list", "--state", "failed", "--state", "queued", "--limit", 1, "--json").stdout)["jobs"]
    assert [(job["id"], job["owner"], job["state"]) for job in chosen] == [(waiting.id, "ada", "queued")]


def test_a_job_is_shown_whole(jobs: Operator, queue: JobQueue) -> None:
    job = queue.submit(replace(example_case(), model_sha256="d" * 64), "ada")
    shown = jobs("show", job.id[:6])
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines() if len(line.split()) > 1)
    assert (lines["id"], lines["owner"], lines["state"]) == (job.id, "ada", "queued")
    assert json.loads(lines["options"]) == {"overlap": 0.5, "patch": [8, 8, 8]}
    data = json.loads(jobs("show", job.id, "--json").stdout)
    assert (data["id"], data["model_sha256"], data["position"], data["problem"]) == (job.id, "d" * 64, 0, None)


def test_jobs_are_cancelled_and_queued_again(jobs: Operator, queue: JobQueue) -> None:
    first, second = submit(queue, 0), submit(queue, 1)
    gate = Gate()
    with working(queue, gate):
        wait_until(lambda: gate.running == [first.id])
        # the waiting one first, as it would start once the other ends
        cancelled = jobs("cancel", second.id, first.id[:8])
        assert cancelled.stdout == f"{second.id}: cancelled\n{first.id}: running; stops at its next tile\n"
        wait_until(lambda: queue.get(first.id).state == "cancelled")
    assert jobs("retry", second.id).stdout == f"{second.id}: queued\n"
    assert (queue.get(first.id).state, queue.get(second.id).state) == ("cancelled", "queued")
    refused = jobs("retry", second.id)
    assert refused.returncode == 2
    assert "one that is queued" in refused.stderr


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
def test_an_id_that_is_no_jobs_is_refused_before_anything_is_done(
    jobs: Operator, queue: JobQueue, command: str
) -> None:
    job = submit(queue, 0)
    ids = ["0" * 12] if command == "show" else [job.id, "0" * 12]
    result = jobs(command, *ids)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("voxport: job 000000000000: ")
    assert queue.get(job.id).state == "queued"


def test_a_state_that_is_none_is_refused(jobs: Operator) -> None:
    result = jobs("list", "--state", "lost")
    assert result.returncode == 2
    assert "parked" in result.stderr


@pytest.mark.parametrize("command", [["list"], ["show", "abcdef"], ["cancel", "abcdef"], ["retry", "abcdef"]])
def test_a_database_that_is_not_there_is_one_line_and_is_not_created(
    jobs: Operator, tmp_path: Path, command: list[str]
) -> None:
    result = jobs(*command)
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "a database that answers" in result.stderr
    assert "no such file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_does_not_answer_is_one_line(voxport: Command) -> None:
    result = voxport("jobs", "list", env={"VOXPORT_JOBS__DATABASE": "postgresql://nobody@127.0.0.1:1/jobs"})
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "a database that answers" in result.stderr

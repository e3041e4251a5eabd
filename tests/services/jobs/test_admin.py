"""Operators find jobs by the beginnings of their ids, and see all that is known of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from voxport.domain.errors import UnknownJobError, UsageError, VoxportError
from voxport.domain.job import Job, JobCase, JobFailure
from voxport.services.jobs.admin import find_jobs, job_record, queue_errors
from voxport.testing.job_queue import example_case, results_of
from voxport.testing.job_queue_fake import MemoryJobQueue


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryJobQueue:
    ids = iter(f"{start}-4b1d-4000-8000-000000000000" for start in ("abcdef11", "abcdef12", "12345678"))
    monkeypatch.setattr("uuid.uuid4", lambda: next(ids).rjust(36, "0"))
    queue = MemoryJobQueue()
    for number, owner in enumerate(("ada", "bob", "ada")):
        queue.submit(example_case(number), owner)
    return queue


def test_jobs_are_found_by_an_id_or_its_beginning_whoever_s_they_are(queue: MemoryJobQueue) -> None:
    first, second, third = reversed(queue.list())
    beginnings = [third.id[:6], second.id, first.id[:8]]
    assert find_jobs(beginnings, queue) == (third, second, first)
    assert find_jobs([], queue) == ()


@pytest.mark.parametrize(
    ("id", "error", "told"),
    [
        ("123", UsageError, "its first 6 characters"),
        ("abcdef1", UsageError, "beginning of 2 ids"),
        ("zzzzzz", UnknownJobError, "zzzzzz"),
        ("0" * 36, UnknownJobError, "000"),
    ],
)
def test_an_id_that_is_none_or_several_is_refused(
    queue: MemoryJobQueue, id: str, error: type[VoxportError], told: str
) -> None:
    with pytest.raises(error, match=told):
        find_jobs([id], queue)


def test_a_record_is_plain_data_with_times_in_utc() -> None:
    case = replace(example_case(), model_sha256="d" * 64, estimate_seconds=2.5)
    job = Job("1", "ada", case, 0.0, started=1.5, failure=JobFailure("input", "a reason"))
    record = job_record(replace(job, state="done", ended=61.0, results=results_of(job)))
    assert json.loads(json.dumps(record)) == record
    assert [record[name] for name in ("submitted", "started", "ended")] == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:01.500Z",
        "1970-01-01T00:01:01.000Z",
    ]
    assert record["problem"] == {"kind": "input", "detail": "a reason"}
    assert record["inputs"] == [{"name": "scan-0.nii.gz", "blob": "case-0/inputs/0", "sha256": f"{0:064x}"}]
    assert record["results"]["mask"]["sha256"] == "f" * 64
    assert (record["owner"], record["model_sha256"], record["estimate_seconds"]) == ("ada", "d" * 64, 2.5)


def test_what_is_not_known_is_none() -> None:
    record = job_record(Job("1", "ada", JobCase("f", (), "m:1.0.0"), 0.0))
    assert [record[name] for name in ("started", "ended", "problem", "model_sha256", "results")] == [
        None,
        None,
        None,
        None,
        {},
    ]


def test_a_database_that_is_away_is_one_clear_line() -> None:
    with (
        pytest.raises(VoxportError, match="expected a database that answers, got the job database: away"),
        queue_errors(),
    ):
        raise ConnectionError("the job database: away")
    with pytest.raises(OSError, match="other"), queue_errors():
        raise OSError("other")

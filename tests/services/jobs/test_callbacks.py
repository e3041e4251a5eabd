"""Callbacks: told when the job has ended, again until it is heard, and never lost with a worker."""

from __future__ import annotations

import json
import logging

import pytest
from voxport.domain.errors import UsageError
from voxport.domain.job import Job
from voxport.services.jobs.callbacks import DELAYS, Callbacks
from voxport.services.jobs.submit import JobPorts
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.job_queue import example_case
from voxport.testing.job_queue_fake import MemoryJobQueue
from voxport.testing.webhooks import RecordingWebhooks

URL = "http://good.example/hook"


class Bench:
    """A queue, stored files, a sender and a clock, which outlive each `Callbacks`."""

    def __init__(self) -> None:
        self.queue, self.blobs, self.sender, self.now = MemoryJobQueue(), MemoryBlobs(), RecordingWebhooks(), 1000.0

    @property
    def callbacks(self) -> Callbacks:
        def describe(job: Job) -> dict[str, object]:
            return {"id": job.id, "state": job.state, "ended": "1970-01-01T00:00:00.000Z"}

        return Callbacks(JobPorts(self.queue, self.blobs), self.sender, describe, lambda: self.now)

    def submit(self) -> Job:
        return self.queue.submit(example_case(), "ada")

    def left(self) -> tuple[str, ...]:
        return self.blobs.names("callbacks")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_url_is_told_once_when_its_job_has_ended(bench: Bench) -> None:
    job, other = bench.submit(), bench.submit()
    bench.callbacks.add(job, URL)
    bench.callbacks.add(other, f"{URL}/other")
    assert bench.callbacks.deliver() == 0
    bench.queue.cancel(job.id, "ada")
    assert bench.callbacks.deliver() == 1
    assert bench.callbacks.deliver() == 0
    ((url, id, body),) = bench.sender.sent
    assert (url, id) == (URL, job.id)
    assert json.loads(body) == {
        "type": "job.cancelled",
        "timestamp": "1970-01-01T00:00:00.000Z",
        "data": {"id": job.id, "state": "cancelled", "ended": "1970-01-01T00:00:00.000Z"},
    }
    assert len(bench.left()) == 1


def test_a_url_that_does_not_answer_is_told_later_and_given_up_at_last(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job = bench.submit()
    bench.callbacks.add(job, URL)
    bench.queue.cancel(job.id, "ada")
    bench.sender.fails = True
    with caplog.at_level(logging.WARNING):
        for delay in DELAYS:
            assert bench.callbacks.deliver() == 0
            bench.now += delay - 1
            bench.callbacks.deliver()  # too early: nothing is tried
            bench.now += 1
        assert len(caplog.records) == len(DELAYS)
        assert bench.left()
        bench.callbacks.deliver()
    assert "given up" in caplog.records[-1].getMessage()
    assert not bench.left()
    assert not bench.sender.sent


def test_a_url_that_answers_the_second_time_is_told_once(bench: Bench) -> None:
    job = bench.submit()
    bench.callbacks.add(job, URL)
    bench.queue.cancel(job.id, "ada")
    bench.sender.fails = True
    bench.callbacks.deliver()
    bench.sender.fails = False
    bench.now += DELAYS[0]
    assert bench.callbacks.deliver() == 1
    assert len(bench.sender.sent) == 1
    assert not bench.left()


def test_a_url_that_is_not_allowed_is_refused_and_later_dropped(bench: Bench) -> None:
    job = bench.submit()
    with pytest.raises(UsageError):
        bench.callbacks.add(job, "http://evil.example/")
    assert not bench.left()
    bench.callbacks.add(job, URL)
    bench.queue.cancel(job.id, "ada")
    bench.sender.check = lambda url: RecordingWebhooks().check(f"http://evil.example/{url}")  # type: ignore[method-assign]
    assert bench.callbacks.deliver() == 0
    assert not bench.left()


def test_the_callback_of_a_deleted_job_goes_with_it(bench: Bench) -> None:
    job = bench.submit()
    bench.callbacks.add(job, URL)
    bench.queue.cancel(job.id, "ada")
    bench.queue.forget(job.id, "ada")
    assert bench.callbacks.deliver() == 0
    assert not bench.left()
    assert not bench.sender.sent

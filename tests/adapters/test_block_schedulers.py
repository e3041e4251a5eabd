"""Schedulers of blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from distributed import Client, Future
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.comm.core import CommClosedError
from voxport.adapters.schedulers.dask import DaskScheduler
from voxport.adapters.schedulers.inline import InlineScheduler
from voxport.domain.errors import UsageError
from voxport.ports.block_scheduler import BlockScheduler
from voxport.testing.block_scheduler import BlockSchedulerContract, note

from tests.rest.serving import free_port


class TestInline(BlockSchedulerContract):
    @classmethod
    def make_scheduler(cls) -> BlockScheduler:
        return InlineScheduler()


class TestDask(BlockSchedulerContract):
    """Two processes, started for the test."""

    @classmethod
    def make_scheduler(cls) -> BlockScheduler:
        return DaskScheduler("local:2", processors=2)


def test_a_result_on_a_worker_that_hangs_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = Future.result
    hung: list[object] = []

    def result(future: Future[object], timeout: float | None = None) -> object:
        assert timeout is not None  # else it would be waited for without end
        if not hung:
            hung.append(future.key)
            raise TimeoutError
        return fetch(future, timeout)

    monkeypatch.setattr(Future, "result", result)
    with DaskScheduler("local:2", processors=2) as scheduler:
        found = list(scheduler.map(partial(note, tmp_path), range(3)))
    assert sorted((one.block, one.result, one.error) for one in found) == [(n, 10 * n, None) for n in range(3)]
    assert sorted(path.read_text(encoding="utf-8") for path in tmp_path.glob("calls-*")) == ["x", "x", "xx"]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ((Client, "submit"), ClosedClientError("the client is closed")),
        ((Client, "processing"), CommClosedError("the stream is closed")),
        ((Client, "scheduler_info"), CommClosedError("connection refused")),
        ((Client, "who_has"), TimeoutError("no answer")),
        ((Future, "result"), CommClosedError("connection reset by peer")),
        ((Future, "result"), FutureCancelledError("a key", "the scheduler is lost")),
    ],
)
def test_whatever_is_asked_of_a_scheduler_that_is_gone_one_error_says_so(
    asked: tuple[type, str], error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("voxport.adapters.schedulers.dask._LOOK_SECONDS", 0)
    with DaskScheduler("local:1", processors=2) as scheduler:
        monkeypatch.setattr(*asked, fail)
        if asked[1] == "who_has":  # it is asked for a result that does not come in time
            monkeypatch.setattr(Future, "result", fail)
        with pytest.raises(UsageError, match="expected the scheduler, got no connection"):
            _ = scheduler.workers, list(scheduler.map(partial(note, tmp_path), range(3)))


@pytest.mark.parametrize("address", ["local:0", "local:x", "local:-1", "local:9999999", "host", "host:8786"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="cluster"):
        DaskScheduler(address, processors=2)


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.adapters.schedulers.dask._CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(UsageError, match="start a scheduler"), DaskScheduler(address, processors=2):
        pass


def test_processes_share_the_processors() -> None:
    assert DaskScheduler("local:2", processors=8).threads == 4
    assert DaskScheduler("local:9", processors=8).threads == 1
    assert DaskScheduler("tcp://127.0.0.1:8786", processors=8).threads is None

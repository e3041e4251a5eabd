"""Contract suite of `BlockScheduler`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ..domain.errors import CancelledError, InputError
from ..ports.block_scheduler import BlockScheduler, Workbench


def note(folder: Path, bench: Workbench, block: int) -> int:
    """Return ten times the block; leave a file for each time that a worker is used first, and for each call."""
    if "count" not in bench.kept:
        bench.kept["count"] = 0
        (folder / f"worker-{id(bench)}-{block}").touch()
    bench.kept["count"] += 1
    with (folder / f"calls-{block}").open("a", encoding="utf-8") as calls:
        calls.write("x")
    return 10 * block


def fail_until(folder: Path, call: int, bench: Workbench, block: int) -> int:
    """Fail for odd blocks until they are called for the ``call``-th time."""
    note(folder, bench, block)
    calls = len((folder / f"calls-{block}").read_text(encoding="utf-8"))
    if block % 2 and calls < call:
        raise InputError(f"block {block}", expected="an even one", got="an odd one", do="try again")
    return block


class BlockSchedulerContract:
    """Subclass and implement the hook. The tasks of this module have to be importable where the workers are."""

    @classmethod
    def make_scheduler(cls) -> BlockScheduler:
        """Return a scheduler whose workers see this machine's files."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def scheduler(cls) -> Iterator[BlockScheduler]:
        """Return a scheduler that is connected for all tests."""
        with cls.make_scheduler() as connected:
            yield connected

    def test_every_block_comes_once_with_its_result(self, scheduler: BlockScheduler, tmp_path: Path) -> None:
        found = list(scheduler.map(partial(note, tmp_path), range(7)))
        assert sorted((one.block, one.result, one.error) for one in found) == [(n, 10 * n, None) for n in range(7)]
        assert sorted(path.name for path in tmp_path.glob("calls-*")) == [f"calls-{n}" for n in range(7)]
        assert all(path.read_text(encoding="utf-8") == "x" for path in tmp_path.glob("calls-*"))

    def test_a_worker_keeps_things_from_task_to_task(self, scheduler: BlockScheduler, tmp_path: Path) -> None:
        list(scheduler.map(partial(note, tmp_path), range(9)))
        list(scheduler.map(partial(note, tmp_path), range(9)))
        assert len(list(tmp_path.glob("worker-*"))) <= scheduler.workers

    def test_a_block_that_fails_is_tried_again(self, scheduler: BlockScheduler, tmp_path: Path) -> None:
        found = list(scheduler.map(partial(fail_until, tmp_path, 3), range(4), attempts=3))
        assert sorted(one.result for one in found) == [0, 1, 2, 3]
        assert [len((tmp_path / f"calls-{n}").read_text(encoding="utf-8")) for n in range(4)] == [1, 3, 1, 3]

    def test_a_block_that_goes_on_failing_has_its_error_and_the_others_are_done(
        self, scheduler: BlockScheduler, tmp_path: Path
    ) -> None:
        found = list(scheduler.map(partial(fail_until, tmp_path, 9), range(4), attempts=2))
        assert sorted(one.block for one in found if one.error is None) == [0, 2]
        errors = {one.block: one.error for one in found if one.error is not None}
        assert {block: str(error) for block, error in errors.items()} == {
            n: f"block {n}: expected an even one, got an odd one; try again" for n in (1, 3)
        }
        assert all(isinstance(error, InputError) for error in errors.values())

    def test_what_is_raised_while_waiting_ends_it(self, scheduler: BlockScheduler, tmp_path: Path) -> None:
        def stop() -> None:
            raise CancelledError

        with pytest.raises(CancelledError):
            list(scheduler.map(partial(note, tmp_path), range(50), on_wait=stop))
        assert len(list(tmp_path.glob("calls-*"))) < 50
        assert [one.result for one in scheduler.map(partial(note, tmp_path), [3])] == [30]

    def test_there_are_workers_that_have_a_processor_or_more(self, scheduler: BlockScheduler) -> None:
        assert scheduler.workers >= 1
        assert scheduler.threads is None or scheduler.threads >= 1

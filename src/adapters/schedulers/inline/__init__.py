"""Blocks one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Self

from ....domain.errors import VoxportError
from ....ports.block_scheduler import BlockScheduler, BlockTask, Finished, Workbench


class InlineScheduler(BlockScheduler):
    """One worker: this process."""

    threads: int | None = None
    dashboard: str | None = None
    workers = 1

    def __enter__(self) -> Self:
        self._bench = Workbench()
        return self

    def __exit__(self, *error: object) -> None:
        self._bench.close()

    def map(
        self, task: BlockTask, blocks: Sequence[int], *, attempts: int = 3, on_wait: Callable[[], object] = lambda: None
    ) -> Iterator[Finished]:
        for block in blocks:
            on_wait()
            for attempt in range(attempts):
                try:
                    yield Finished(block, task(self._bench, block))
                    break
                except VoxportError as error:
                    if attempt + 1 == attempts:
                        yield Finished(block, error=error)

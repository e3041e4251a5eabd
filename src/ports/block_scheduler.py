"""Running tasks on the blocks of a volume: in this process, or on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ..domain.errors import VoxportError


class Workbench(ExitStack):
    """What a worker keeps from one task to the next, e.g. a loaded network; ``kept`` is empty at first."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}


# Called with a worker's bench and a block. It is sent to other machines, as are its result and its VoxportError.
BlockTask = Callable[[Workbench, int], Any]


@dataclass(frozen=True)
class Finished:
    """The result of a block's task, or the error of its last attempt."""

    block: int
    result: Any = None
    error: VoxportError | None = None


class BlockScheduler(Protocol):
    """Runs tasks on workers. A context manager: it is connected inside of it."""

    @property
    def threads(self) -> int | None:
        """Processors for each worker; None where the workers know themselves."""

    @property
    def dashboard(self) -> str | None:
        """URL of a page that shows what the workers do, if there is one."""

    @property
    def workers(self) -> int:
        """Number of workers now."""

    def map(
        self, task: BlockTask, blocks: Sequence[int], *, attempts: int = 3, on_wait: Callable[[], object] = lambda: None
    ) -> Iterator[Finished]:
        """Run a task for each block, and yield each once, in any order.

        A worker has one task at a time. A block whose worker dies, hangs, or fails is given to another one, up to
        ``attempts`` times. A block may be worked on twice, by a worker that was taken for dead. ``on_wait`` is called a
        few times a second; what it raises ends the iteration, as closing the iterator does: tasks that have not begun
        are then not begun.

        Raises:
            UsageError: the scheduler is gone.
        """

    def __enter__(self) -> Self:
        """Connect. Raises UsageError if there is no scheduler, or none that can be used."""

    def __exit__(self, *error: object) -> None:
        """Disconnect; end workers that were started here."""

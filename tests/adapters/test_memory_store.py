"""The memory store keeps the volume store's contract."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.volume import Volume
from voxport.testing.volume_store import VolumeStoreContract


class TestMemoryStore(VolumeStoreContract):
    """``put`` and ``get`` hand whole volumes over, past the sources and sinks that the contract is about."""

    keeps_channel_names = True
    keeps_labels = True

    def make_store(self) -> MemoryStore:
        self.numbers = count()
        self.memory = MemoryStore()
        return self.memory

    def new_reference(self) -> str:
        return f"volume {next(self.numbers)}"

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        self.memory.put(reference, volume)
        return reference

    def peek(self, reference: str) -> Volume | None:
        try:
            return self.memory.get(reference)
        except InputError:
            return None

    def occupied(self) -> set[str]:
        return set(self.memory._volumes)


def test_a_committed_volume_cannot_be_written_any_more() -> None:
    grid = Grid((2, 2, 2), np.eye(4), "mm")
    sink = MemoryStore().create("a", grid, np.dtype(np.uint8))
    sink.commit()
    with pytest.raises(ValueError, match="committed"):
        sink.write(Box.whole(grid.shape), np.ones(grid.shape, np.uint8))


def test_a_closed_sink_is_of_no_more_use() -> None:
    sink = MemoryStore().create("a", Grid((2, 2, 2), np.eye(4), "mm"), np.dtype(np.uint8))
    sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink.commit()


def test_boxes_beyond_the_grid_and_wrong_shapes_are_refused() -> None:
    grid = Grid((2, 3, 4), np.eye(4), "mm")
    sink = MemoryStore().create("a", grid, np.dtype(np.uint8))
    with pytest.raises(ValueError, match="box"):
        sink.read(Box((0, 0, 0), (2, 3, 5)))
    with pytest.raises(ValueError, match="values"):
        sink.write(Box.whole(grid.shape), np.ones((4, 3, 2), np.uint8))
    with pytest.raises(TypeError):
        sink.write(Box.whole(grid.shape), np.ones(grid.shape, np.float32))

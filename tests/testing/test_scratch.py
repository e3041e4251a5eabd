"""The scratch in memory keeps the contract, and says what was asked of it."""

from __future__ import annotations

import numpy as np
from voxport.ports.scratch import Scratch
from voxport.testing.scratch import MemoryScratch, ScratchContract


class TestMemoryScratch(ScratchContract):
    def make_scratch(self) -> Scratch:
        return MemoryScratch()

    def make_full_scratch(self) -> Scratch:
        return MemoryScratch(buffer_bytes=2**20)

    def leftovers(self) -> list[str]:
        return []


def test_it_says_which_arrays_were_made_and_how_large_a_piece_was_read() -> None:
    scratch = MemoryScratch()
    with scratch.buffer((4, 6, 2), np.int64) as buffer:
        buffer.read(slice(0, 1), slice(0, 6))
        buffer.read(slice(0, 1), slice(0, 2))
    assert (scratch.made, scratch.largest_bytes) == ([(4, 6, 2)], 96)

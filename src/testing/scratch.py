"""Contract suite of `Scratch`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from ..domain.errors import LimitError
from ..ports.scratch import Scratch

_SHAPES: tuple[tuple[int, ...], ...] = ((1, 1), (5, 7), (4, 6, 3), (6, 5, 2, 3))


class ScratchContract:
    """Subclass and implement the hooks; they check files without the adapter."""

    def make_scratch(self) -> Scratch:
        """Return a scratch with space for some megabytes."""
        raise NotImplementedError

    def make_full_scratch(self) -> Scratch:
        """Return a scratch without space for 16 MiB."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Return the named files."""
        raise NotImplementedError

    @pytest.mark.parametrize("dtype", [np.float32, np.int64])
    @pytest.mark.parametrize("shape", _SHAPES)
    def test_an_array_is_zeros_to_begin_with(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        with self.make_scratch().buffer(shape, dtype) as buffer:
            found = buffer.read(slice(0, shape[0]), slice(0, shape[1]))
        assert (found.shape, found.dtype) == (shape, np.dtype(dtype))
        assert not found.any()

    @given(data=st.data(), shape=st.sampled_from(_SHAPES), dtype=st.sampled_from([np.float32, np.int64]))
    def test_pieces_are_those_of_an_array_in_memory(
        self, data: st.DataObject, shape: tuple[int, ...], dtype: DTypeLike
    ) -> None:
        known, dice = np.zeros(shape, dtype), np.random.default_rng(0)
        with self.make_scratch().buffer(shape, dtype) as buffer:
            for _ in range(data.draw(st.integers(1, 4))):
                piece = _slice(data, shape[0]), _slice(data, shape[1])
                values = dice.integers(-(2**20), 2**20, known[piece].shape).astype(dtype)
                known[piece] = values
                buffer.write(*piece, values)
                # given back as it was read, and changed in between
                part = buffer.read(*piece)
                part += 1
                buffer.write(*piece, part)
                known[piece] += 1
                np.testing.assert_array_equal(buffer.read(slice(0, shape[0]), slice(0, shape[1])), known)

    def test_values_in_any_memory_order_and_type_are_taken(self) -> None:
        values = np.arange(24.0).reshape(4, 3, 2).transpose(1, 2, 0)
        with self.make_scratch().buffer((3, 2, 4), np.float32) as buffer:
            buffer.write(slice(0, 3), slice(0, 2), values)
            np.testing.assert_array_equal(buffer.read(slice(0, 3), slice(0, 2)), values)

    def test_arrays_do_not_share_their_values(self) -> None:
        scratch = self.make_scratch()
        with scratch.buffer((2, 2), np.int64) as one, scratch.buffer((2, 2), np.int64) as other:
            one.write(slice(0, 2), slice(0, 2), np.ones((2, 2), np.int64))
            assert not other.read(slice(0, 2), slice(0, 2)).any()

    def test_space_for_a_buffer_is_available(self) -> None:
        assert self.make_scratch().available_bytes() >= 2**20

    def test_nothing_is_kept_under_a_name(self) -> None:
        with self.make_scratch().buffer((64, 64), np.int64) as buffer:
            buffer.write(slice(0, 64), slice(0, 64), np.ones((64, 64), np.int64))
            assert self.leftovers() == []
        assert self.leftovers() == []

    def test_a_buffer_larger_than_the_free_space_is_a_limit_error_at_once(self) -> None:
        with pytest.raises(LimitError, match=r"expected room for \d+ bytes.*, got .*; "):
            self.make_full_scratch().buffer((2**12, 2**9), np.int64)
        assert self.leftovers() == []


def _slice(data: st.DataObject, edge: int) -> slice:
    start, stop = sorted(data.draw(st.sets(st.integers(0, edge), min_size=2, max_size=2)))
    return slice(start, stop)

"""Buffers for arrays that grow with the area of a plane: in memory, or provided by the caller for large ones."""

from __future__ import annotations

import math
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

# In bytes; larger arrays go to the caller's buffers.
LARGEST_IN_MEMORY = 2**24


class Buffer(Protocol):
    """An array ``(rows, columns, ...)``, initially zero, read and written in pieces."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a piece, a view or a copy. Changes to it count only after `write`."""

    def write(self, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """Store a piece. Raises LimitError if there is no space."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Buffers(Protocol):
    """Creates buffers outside the process's memory."""

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Create a buffer. Raises LimitError if there is no space."""


class MemoryBuffer:
    """A `Buffer` in memory; pieces are views."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._array: NDArray[Any] = np.zeros(shape, dtype)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """See Buffer.read."""
        return self._array[rows, columns]

    def write(self, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """See Buffer.write."""
        if values.base is not self._array:  # a view was changed in place
            self._array[rows, columns] = values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._array = np.zeros((0, 0), self._array.dtype)


def buffer_in(buffers: Buffers | None, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
    """Create a buffer: in ``buffers`` if given and the array is large, else in memory."""
    if buffers is None or not is_large(math.prod(shape) * np.dtype(dtype).itemsize):
        return MemoryBuffer(shape, dtype)
    return buffers.buffer(shape, dtype)


def is_large(size_bytes: int) -> bool:
    """Return whether an array of this size goes to the caller's buffers."""
    return size_bytes > LARGEST_IN_MEMORY

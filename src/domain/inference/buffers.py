"""Room for arrays that grow with a plane of the volume: ordinary memory, or what a program brings for large ones."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

# With a room, larger arrays go there.
LARGEST_IN_MEMORY = 2**24


class Buffer(Protocol):
    """An array ``(rows, columns, ...)`` of zeros to begin with, read and written in pieces. Closes itself."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """A piece, the further axes whole. Changing it changes the shelf for certain only once it is written."""
        ...

    def write(self, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """Put a piece in its place. Raises LimitError where there is no room for it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Buffers(Protocol):
    """Makes shelves that hold next to no memory."""

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """A new shelf. Raises LimitError where there is no room for it."""
        ...


class MemoryBuffer:
    """A shelf in ordinary memory; pieces are views."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._array: NDArray[Any] = np.zeros(shape, dtype)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """See Shelf.read."""
        return self._array[rows, columns]

    def write(self, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """See Shelf.write."""
        if values.base is not self._array:  # else it was changed in its place
            self._array[rows, columns] = values

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._array = np.zeros((0, 0), self._array.dtype)


def buffer_in(buffers: Buffers | None, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
    """A shelf in the room if there is one and the array is large, else in ordinary memory."""
    if buffers is None or not is_large(math.prod(shape) * np.dtype(dtype).itemsize):
        return MemoryBuffer(shape, dtype)
    return buffers.buffer(shape, dtype)


def is_large(size_bytes: int) -> bool:
    """Whether an array of this size belongs in the room."""
    return size_bytes > LARGEST_IN_MEMORY

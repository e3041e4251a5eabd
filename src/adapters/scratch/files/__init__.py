"""Scratch buffers in unlinked files on disk."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...disk import no_space, reserve, scratch_folder, unlinked_file


class ScratchFiles:
    """`Scratch` in a folder, by default the system's temporary folder.

    Space is allocated on creation, so a full disk is detected early. Files are not mapped: mapped pages count as
    resident memory, and a failing disk kills the process of a map.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._given = folder

    @property
    def _folder(self) -> Path:
        return scratch_folder(self._given)

    def available_bytes(self) -> int:
        """See Scratch.available_bytes. A buffer names the reason where it is unknown."""
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return sys.maxsize
        return status.f_bavail * status.f_frsize

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> FileBuffer:
        """Create a buffer. Raises LimitError if it exceeds the disk, NoSpaceError if the disk is full at present."""
        return FileBuffer(self._folder, shape, np.dtype(dtype))


class FileBuffer:
    """A buffer in an unlinked file, which disappears with the process."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._folder, self._shape, self._dtype = folder, shape, dtype
        self._cell = math.prod(shape[2:]) * dtype.itemsize
        self._size = shape[0] * shape[1] * self._cell
        self._expected = f"room for {self._size} bytes while tiles are blended"
        self._file = unlinked_file(folder, self._size, self._expected)
        try:
            reserve(self._file.fileno(), self._size)
        except OSError as error:
            self._file.close()
            raise no_space(folder, self._expected, error) from None

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start, *self._shape[2:]), self._dtype)
        self._transfer(os.preadv, rows, columns, values)
        return values

    def write(self, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        self._transfer(os.pwritev, rows, columns, np.ascontiguousarray(values, self._dtype))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _transfer(
        self, call: Callable[[int, list[memoryview], int], int], rows: slice, columns: slice, values: NDArray[Any]
    ) -> None:
        content, length = memoryview(values.reshape(-1).view(np.uint8).data), values.shape[1] * self._cell
        count = values.shape[0]
        if values.shape[1] == self._shape[1]:  # whole rows follow each other
            count, length = min(count, 1), count * length
        try:
            for row in range(count):
                rest = content[row * length : (row + 1) * length]
                position = ((rows.start + row) * self._shape[1] + columns.start) * self._cell
                while rest:
                    done = call(self._file.fileno(), [rest], position)
                    if not done:
                        raise OSError("a scratch file that was cut short")
                    rest, position = rest[done:], position + done
        except OSError as error:
            raise no_space(self._folder, self._expected, error) from None

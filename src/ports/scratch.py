"""Room beyond memory for the large arrays of a run."""

from __future__ import annotations

from typing import Protocol

from numpy.typing import DTypeLike

from ..domain.inference.buffers import Buffer, Buffers


class Scratch(Buffers, Protocol):
    """Keeps large arrays while a run goes on; each vanishes when it is closed, and with its process."""

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """A new array of zeros, read and written in pieces. Raises LimitError where there is no room for all of it."""
        ...

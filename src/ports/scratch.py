"""Port for large arrays outside memory."""

from __future__ import annotations

from typing import Protocol

from numpy.typing import DTypeLike

from ..domain.inference.buffers import Buffer, Buffers


class Scratch(Buffers, Protocol):
    """Creates buffers for the time of a run; a buffer disappears when it is closed, or with its process."""

    def available_bytes(self) -> int:
        """Space that is free now; very large where it is unknown. Never raises."""

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Create a buffer of zeros. Raises LimitError if there is no space for all of it."""

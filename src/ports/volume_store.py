"""Reading and writing volumes slab by slab."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..domain.geometry.grid import Box, Grid
from ..domain.volume import Volume


class VolumeSource(Protocol):
    """A stored volume, open for reading any box of it. A context manager that closes itself."""

    @property
    def grid(self) -> Grid:
        """Shape, affine and unit as stored."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels; 1 for a 3-D volume."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The real scalar type that ``read`` returns, scaling applied."""
        ...

    @property
    def slowest_axis(self) -> int:
        """The array axis along which slabs are read at the least cost."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about how the volume is stored, e.g. two affines that disagree."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Values ``(C, x, y, z)`` of the voxels in ``box``, in ``dtype``, in any memory order; a copy."""
        ...

    def sha256(self) -> str:
        """Hash of the stored bytes."""
        ...

    def close(self) -> None:
        """Release what is held. Closing twice does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VolumeSink(Protocol):
    """A volume being written box by box, in any order. Without ``commit`` nothing appears under its name."""

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Set the voxels of ``box`` to ``(C, x, y, z)`` or, for one channel, ``(x, y, z)``. Raises OutputError."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Values ``(C, x, y, z)`` written so far."""
        ...

    def commit(self) -> str:
        """Make the volume appear under its name, whole, replacing what was there; returns its sha256.

        The hash is what ``VolumeSource.sha256`` gives for the volume from now on. Committing twice does nothing.
        Raises OutputError.
        """
        ...

    def close(self) -> None:
        """Drop what was not committed. Closing twice does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VolumeStore(Protocol):
    """A place that keeps volumes by reference: a path, for files."""

    def open(self, reference: str) -> VolumeSource:
        """Open a volume for reading.

        Raises:
            InputError: it is missing, damaged, or of a kind that cannot be segmented.
            LimitError: it has more voxels than the stated limit.
        """
        ...

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
    ) -> VolumeSink:
        """Begin a volume filled with zeros.

        ``like`` is a source of the same store and the same grid: how it states its place in space (for NIfTI: sform,
        qform, their codes, unit, intent) is kept exactly.

        Raises:
            OutputError: the place does not exist, is read-only, or has no room.
        """
        ...


class ArrayStore(VolumeStore, Protocol):
    """A volume store in memory: what was put there can be opened, and what was written there can be had back."""

    def put(self, reference: str, volume: Volume) -> None:
        """Keep a volume under a reference, in the place of the one before."""
        ...

    def get(self, reference: str) -> Volume:
        """The volume under a reference. Raises InputError if there is none."""
        ...

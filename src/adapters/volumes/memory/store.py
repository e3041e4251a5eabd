"""The volume store that keeps volumes in a dictionary."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.geometry.grid import Box, Grid
from ....domain.volume import Volume
from ....ports.volume_store import VolumeSource


class MemoryStore:
    """Volumes by reference, which is any text. Safe for several threads."""

    def __init__(self) -> None:
        self._volumes: dict[str, Volume] = {}

    def put(self, reference: str, volume: Volume) -> None:
        """Keep a volume under a reference, in the place of the one before."""
        self._volumes[reference] = volume

    def get(self, reference: str) -> Volume:
        """The volume under a reference. Raises InputError if there is none."""
        try:
            return self._volumes[reference]
        except KeyError:
            raise InputError(reference, expected="a stored volume", got="none", do="put it first") from None

    def open(self, reference: str) -> MemorySource:
        """Open a volume for reading. Raises InputError if there is none."""
        return MemorySource(self.get(reference))

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
    ) -> MemorySink:
        """Begin a volume filled with zeros. ValueError if ``like`` is on another grid."""
        if like is not None and like.grid != grid:
            raise ValueError("like: expected a source on the same grid")
        return MemorySink(self, reference, grid, np.zeros((channels, *grid.shape), dtype))


class MemorySource:
    """A kept volume, open for reading; what is put under its reference later does not change it."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def grid(self) -> Grid:
        """The volume's grid."""
        return self._volume.grid

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._volume.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's type."""
        return self._volume.array.dtype

    @property
    def slowest_axis(self) -> int:
        """0: arrays are C-ordered."""
        return 0

    @property
    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def read(self, box: Box) -> NDArray[Any]:
        """A copy of the values ``(C, x, y, z)`` in ``box``. ValueError if it does not lie within the grid."""
        return _view(self._volume.array, box).copy()

    def sha256(self) -> str:
        """Hash of the values' bytes in C order, and of type, shape and place."""
        volume = self._volume
        digest = hashlib.sha256(f"{volume.array.dtype.str} {volume.array.shape} {volume.grid.unit} ".encode())
        digest.update(volume.grid.affine.tobytes())
        digest.update(volume.array.tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemorySink:
    """A volume being written; kept on commit."""

    def __init__(self, store: MemoryStore, reference: str, grid: Grid, array: NDArray[Any]) -> None:
        self._store = store
        self._reference = reference
        self._grid = grid
        self._array: NDArray[Any] | None = array
        self._hash: str | None = None

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Set the voxels of ``box`` to ``(C, x, y, z)`` or, for one channel, ``(x, y, z)``.

        Raises:
            ValueError: the box does not lie within the grid, the shape is not the box's, or the sink is closed.
            TypeError: the values' kind does not fit the volume's.
        """
        array = self._open_array()
        if self._hash is not None:
            raise ValueError("the volume is committed")
        view = _view(array, box)
        if values.shape != view.shape and (len(array) != 1 or values.shape != box.shape):
            raise ValueError(f"values: expected {view.shape}, got {values.shape}")
        np.copyto(view, values.reshape(view.shape), casting="same_kind")

    def read(self, box: Box) -> NDArray[Any]:
        """A copy of the values ``(C, x, y, z)`` written so far; zeros elsewhere. ValueError once closed."""
        return _view(self._open_array(), box).copy()

    def commit(self) -> str:
        """Keep the volume under its reference, in the place of the one before; returns its sha256.

        Committing twice does nothing.
        """
        if self._hash is None:
            volume = Volume(self._open_array(), self._grid)
            self._hash = MemorySource(volume).sha256()
            self._store.put(self._reference, volume)
        return self._hash

    def close(self) -> None:
        """Drop what was not committed."""
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_array(self) -> NDArray[Any]:
        if self._array is None:
            raise ValueError("the volume is closed")
        return self._array


def _view(array: NDArray[Any], box: Box) -> NDArray[Any]:
    limits = zip(box.start, box.stop, array.shape[1:], strict=True)
    if not all(0 <= start <= stop <= edge for start, stop, edge in limits):
        raise ValueError(f"box: expected one within {array.shape[1:]}, got {box.start} to {box.stop}")
    return array[(slice(None), *box.slices)]

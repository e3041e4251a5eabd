"""Volumes kept in memory, for programs that embed voxport and for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.geometry.grid import Box, Grid, shape3
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.stored_array import StoredArray
from ....domain.volume import Volume
from ....domain.volume_names import VolumeNames
from ....ports.volume_store import OpenVolume, VolumeSink, VolumeSource
from ...spool import check_new_volume


class MemoryStore:
    """A dictionary of volumes by reference, which is any text. Safe for several threads.

    Args:
        names: endings of its references, where other stores stand beside it.
        max_voxels: the most voxels, all channels counted, that a volume may have once it is resampled.
    """

    def __init__(self, names: VolumeNames | None = None, max_voxels: int = 2**33) -> None:
        self.names = names or VolumeNames()
        self.max_voxels = max_voxels
        self._volumes: dict[str, Volume] = {}

    def put(self, reference: str, volume: Volume) -> None:
        """Store a volume under a reference, replacing an earlier one."""
        self._volumes[reference] = volume

    def get(self, reference: str) -> Volume:
        """Return the volume under a reference. Raises InputError if there is none."""
        try:
            return self._volumes[reference]
        except KeyError:
            raise InputError(reference, expected="a stored volume", got="none", do="put it first") from None

    def recognises(self, reference: str) -> bool:
        return reference in self._volumes

    def places(self, reference: str) -> tuple[str, ...]:
        return (reference,)

    def open(self, reference: str, reading: Reading | None = None) -> MemorySource:
        volume, reading = self.get(reference), reading or Reading()
        if reading == Reading():
            return MemorySource(volume)
        stored = StoredArray(
            volume.array.shape,
            volume.array.dtype,
            "CXYZ",
            unit=volume.grid.unit,
            sources=dict.fromkeys("XYZ", "affine"),
            affine=volume.grid.affine,
            channel_names=volume.channel_names,
        )
        view = stored.view(reading, reference)
        return MemorySource(Volume(view.values(volume.array), view.grid, view.channel_names), view.sources)

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> MemorySink:
        check_new_volume(grid, channels, channel_names, like)
        if like is not None and like.slowest_axis == 2:  # in the memory order of its values
            array = np.zeros((channels, *grid.shape[::-1]), dtype).swapaxes(1, 3)
        else:
            array = np.zeros((channels, *grid.shape), dtype)

        def keep(written: NDArray[Any]) -> Volume:
            volume = Volume(written, grid, tuple(channel_names), labels)
            self.put(reference, volume)
            return volume

        return MemorySink(array, keep)


class MemorySource(OpenVolume):
    """A stored volume, open for reading; a later ``put`` under its reference does not change it."""

    notes: tuple[str, ...] = ()

    def __init__(self, volume: Volume, spacing_sources: tuple[str, str, str] = ("affine", "affine", "affine")) -> None:
        self._volume, self.spacing_sources = volume, spacing_sources
        self.grid, self.channels, self.channel_names = volume.grid, volume.channels, volume.channel_names
        self.dtype: np.dtype[Any] = volume.array.dtype
        # the axis with the longest steps in memory: 0 for an array in C order, 2 for one in Fortran's
        strides = volume.array.strides[1:]
        self.slowest_axis = max(range(3), key=lambda axis: (strides[axis], -axis))
        self.chunk = shape3(1 if axis == self.slowest_axis else edge for axis, edge in enumerate(self.grid.shape))

    def read(self, box: Box, channels: Sequence[int] | None = None) -> NDArray[Any]:
        view = box.view(self._volume.array)
        if channels is None:
            return view.copy(order="K")
        if not all(0 <= channel < self.channels for channel in channels):
            raise ValueError(f"channels: expected some of 0 to {self.channels - 1}, got {list(channels)}")
        chosen = [view[channel].copy(order="K") for channel in channels]
        return np.stack(chosen) if len(chosen) != 1 else chosen[0][np.newaxis]

    def sha256(self) -> str:
        """Return the hash of the values' bytes in C order, and of type, shape and affine."""
        volume = self._volume
        digest = hashlib.sha256(f"{volume.array.dtype.str} {volume.array.shape} {volume.grid.unit} ".encode())
        digest.update(volume.grid.affine.tobytes())
        digest.update(volume.array.tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        pass


class MemorySink(VolumeSink):
    """A volume being written; ``keep`` stores it on commit."""

    notes: tuple[str, ...] = ()

    def __init__(self, array: NDArray[Any], keep: Callable[[NDArray[Any]], Volume]) -> None:
        self._keep = keep
        self._array: NDArray[Any] | None = array
        self._hash: str | None = None

    def write(self, box: Box, values: NDArray[Any]) -> None:
        array = self._open_array()
        if self._hash is not None:
            raise ValueError("the volume is committed")
        view = box.view(array)
        if values.shape != view.shape and (len(array) != 1 or values.shape != box.shape):
            raise ValueError(f"values: expected {view.shape}, got {values.shape}")
        np.copyto(view, values.reshape(view.shape), casting="same_kind")

    def read(self, box: Box) -> NDArray[Any]:
        return box.view(self._open_array()).copy(order="K")

    def commit(self) -> str:
        if self._hash is None:
            self._hash = MemorySource(self._keep(self._open_array())).sha256()
        return self._hash

    def close(self) -> None:
        self._array = None

    def _open_array(self) -> NDArray[Any]:
        if self._array is None:
            raise ValueError("the volume is closed")
        return self._array

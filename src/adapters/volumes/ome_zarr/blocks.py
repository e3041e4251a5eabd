"""OME-Zarr whose chunks several processes write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import OutputError
from ....domain.geometry.grid import Box, Grid, Shape3
from ....domain.labels.label_map import LabelTable
from ....domain.volume_names import OME_ZARR, VolumeNames
from ....ports.block_volumes import BlockVolumes
from ....ports.volume_store import VolumeSink, VolumeSource, VolumeStore
from ...arrays import package
from ...disk import output_errors
from ...spool import publish, written_dtype
from .containers import EXTRA, is_url
from .sink import CHUNK, Statement, image_of_labels, new_tree, notes_of, thin_levels
from .source import OmeZarrSource

_NAMES = VolumeNames((OME_ZARR,))


class OmeZarrBlocks(BlockVolumes):
    """Images in the making as folders of zarr, which ``volumes`` opens once they are published."""

    chunk: Shape3 = (CHUNK[2], CHUNK[1], CHUNK[0])

    def __init__(self, volumes: VolumeStore) -> None:
        self._volumes = volumes

    def publishes(self, reference: str) -> bool:
        if is_url(reference) or _NAMES.ending(reference) not in OME_ZARR.folders:
            return False
        return image_of_labels(Path(reference)) is None

    def begin(
        self,
        folder: str,
        name: str,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> None:
        place, path = Path(folder) / name, Path(reference)
        statement = Statement(grid, tuple(channel_names), labels, _format_of(like))
        with output_errors(place.name):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            new_tree(statement, path.name, (channels, *grid.shape), written_dtype(dtype), place / path.name)

    def open(self, folder: str, name: str, reference: str, grid: Grid) -> VolumeSink:
        return _BlockSink(Path(folder) / name, Path(reference), notes_of(grid), self._digest)

    def _digest(self, reference: str) -> str:
        with self._volumes.open(reference) as source:
            return source.sha256()

    def discard(self, folder: str) -> None:
        with output_errors(Path(folder).name):
            shutil.rmtree(folder)


def _format_of(like: VolumeSource | None) -> int:
    return like.zarr_format if isinstance(like, OmeZarrSource) else 3


class _BlockSink(VolumeSink):
    """See VolumeSink. What other processes wrote is read as well."""

    def __init__(self, place: Path, path: Path, notes: tuple[str, ...], digest: Callable[[str], str]) -> None:
        zarr = package("zarr", EXTRA, path.name)
        self._place, self._path, self._digest, self._notes = place, path, digest, notes
        self._hash: str | None = None
        try:
            group = zarr.open_group(zarr.storage.LocalStore(place / path.name), mode="r+")
            levels = sorted(group.arrays(), key=lambda item: int(item[0]))
        except (OSError, ValueError) as error:
            got = type(error).__name__
            do = "run again with another name"
            raise OutputError(path.name, expected="a volume in the making", got=got, do=do) from None
        self._levels: list[Any] = [array for _, array in levels]

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    def write(self, box: Box, values: NDArray[Any]) -> None:
        level = self._open()
        if self._hash is not None:
            raise ValueError("the volume is committed")
        shape = (*([level.shape[0]] if level.ndim == 4 else [1]), *box.shape)
        self._check(box)
        if values.shape != shape and (shape[0] != 1 or values.shape != box.shape):
            raise ValueError(f"values: expected {shape}, got {values.shape}")
        if not np.can_cast(values.dtype, level.dtype, "same_kind"):
            raise TypeError(f"values: expected {level.dtype}, got {values.dtype}")
        turned = np.array(values.reshape(shape).transpose(0, 3, 2, 1), level.dtype, order="C")
        with output_errors(self._path.name):
            level[_index(box, level.ndim)] = turned if level.ndim == 4 else turned[0]

    def read(self, box: Box) -> NDArray[Any]:
        level = self._open()
        self._check(box)
        values = np.asarray(level[_index(box, level.ndim)])
        return values.reshape(-1, *values.shape[-3:]).transpose(0, 3, 2, 1)

    def commit(self) -> str:
        if self._hash is None:
            self._open()
            with output_errors(self._path.name):
                thin_levels(self._levels)
                publish(self._place, self._path)
            self._hash = self._digest(str(self._path))
        return self._hash

    def close(self) -> None:
        self._levels = []

    def _open(self) -> Any:
        if not self._levels:
            raise ValueError("the volume is closed")
        return self._levels[0]

    def _check(self, box: Box) -> None:
        shape = self._levels[0].shape[:-4:-1]
        if any(not 0 <= a <= b <= n for a, b, n in zip(box.start, box.stop, shape, strict=True)):
            raise ValueError(f"box: expected one within {shape}, got {box.start} to {box.stop}")


def _index(box: Box, axes: int) -> tuple[slice, ...]:
    index = tuple(reversed(box.slices))
    return (slice(None), *index) if axes == 4 else index

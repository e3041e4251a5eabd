"""TIFF volumes on disk: OME-TIFF, ImageJ stacks and the kinds of instruments; written as OME-TIFF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.errors import OutputError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.volume_names import TIFF, VolumeNames
from ....ports.volume_store import VolumeSource
from ...arrays import ArraySource
from ...disk import sha256
from ...spool import SpooledSink, check_file_name, check_new_volume
from .ome_xml import TYPES
from .opening import MAGIC, open_tiff, set_of
from .writing import lost, writer_of

__all__ = ["TiffStore"]


class TiffStore:
    """Volumes as TIFF files; a reference is a path.

    Read: OME-TIFF, ImageJ stacks, Micro-Manager, LSM, STK, FluoView, ScanImage and plain stacks; BigTIFF, tiles, any
    byte order; pyramids by ``Reading.level``; every compression of tifffile and imagecodecs. Voxel sizes along all axes
    and the meaning of the axes must be stated, by the file or by ``Reading``.
    Written: OME-TIFF with voxel sizes, place, names of channels, names and colours of labels. Directions are lost.

    Args:
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = VolumeNames((TIFF,))

    def __init__(self, max_voxels: int = 2**33) -> None:
        self.max_voxels = max_voxels

    def recognises(self, reference: str) -> bool:
        """Return whether a file begins as TIFF does."""
        try:
            path = Path(reference)
            if not path.is_file():
                return False
            with path.open("rb") as file:
                return file.read(4) in MAGIC
        except (OSError, ValueError):
            return False

    def places(self, reference: str) -> tuple[str, ...]:
        """Return the real paths of the file and of the others of its set."""
        beside = set_of(Path(reference)) if self.recognises(reference) else []
        return tuple(dict.fromkeys(os.path.realpath(path) for path in (Path(reference), *beside)))

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open a volume for reading; see VolumeStore.open."""
        return open_tiff(Path(reference), reading or Reading(), self.max_voxels)

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
    ) -> SpooledSink:
        """Begin a volume filled with zeros; see VolumeStore.create. Raises OutputError for integers of 64 bits."""
        check_new_volume(grid, channels, channel_names, like)
        path, native = Path(reference), np.dtype(dtype).newbyteorder("=")
        if native.kind in "iu" and native.name not in TYPES:
            do = "write another format, e.g. NIfTI"
            raise OutputError(path.name, expected="values that OME-TIFF holds", got=str(native), do=do)
        check_file_name(path)
        return SpooledSink(
            path, grid, native, channels,
            write=writer_of(path, grid, native, channels, channel_names, labels), digest=sha256, notes=lost(grid),
        )  # fmt: skip

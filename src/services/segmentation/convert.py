"""Copy a volume into another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...domain.geometry.grid import Grid
from ...domain.reading import Reading
from ...domain.run import Outputs
from ...ports.artifacts import ArtifactWriter
from ...ports.progress import ProgressListener
from ...ports.volume_store import VolumeStore
from .case import slabs
from .outputs import check_outputs

SLAB_VOXELS = 2**22


@dataclass(frozen=True)
class Conversion:
    """A volume that was copied.

    ``dtype`` and ``channels`` are the copy's. ``warnings``: what the reader should know of the source, and what the
    format cannot say.
    """

    grid: Grid
    dtype: np.dtype[Any]
    channels: int
    sha256: str
    warnings: tuple[str, ...]


def convert(
    reference: str,
    destination: str,
    reading: Reading,
    progress: ProgressListener,
    *,
    volumes: VolumeStore,
    artifacts: ArtifactWriter,
) -> Conversion:
    """Copy a volume, read as ``reading`` states it, into the format of the destination's name.

    Grid, values and channel names stay. The volume is read slab by slab, and each of its chunks once. The copy appears
    whole or not at all.

    Raises:
        InputError, UsageError, LimitError, OutputError, CancelledError
    """
    check_outputs([reference], Outputs(destination), volumes=volumes, artifacts=artifacts)
    with volumes.open(reference, reading) as source:
        axis, dtype = source.slowest_axis, _writable(source.dtype)
        with volumes.create(
            destination,
            source.grid,
            dtype,
            channels=source.channels,
            like=source,
            channel_names=source.channel_names,
        ) as sink:
            boxes = list(slabs(source.grid, axis, SLAB_VOXELS, multiple=source.chunk[axis]))
            progress.stage("convert", len(boxes))
            for box in boxes:
                sink.write(box, source.read(box))
                progress.advance(1)
            sha256 = sink.commit()
            warnings = tuple(dict.fromkeys((*source.notes, *sink.notes)))
        return Conversion(source.grid, dtype, source.channels, sha256, warnings)


def _writable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the least type that stores write and that holds all values of a type."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    return dtype.newbyteorder("=")

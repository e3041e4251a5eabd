"""Writing of OME-TIFF: one page a plane, compressed with deflate, which every reader knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ...arrays import package
from ...spool import dropped
from .ome_xml import ome_xml
from .planes import EXTRA

# A page with a shorter edge is stored in strips.
_TILE = 256
# Offsets of a classic TIFF have 32 bits; the rest is for headers and for values that do not compress.
_MOST_CLASSIC_BYTES = 2**32 - 2**26


def writer_of(
    path: Path,
    grid: Grid,
    dtype: np.dtype[Any],
    channels: int,
    channel_names: Sequence[str],
    labels: LabelTable | None,
) -> Callable[[NDArray[Any], Path], None]:
    """Return what writes a volume ``(C, x, y, z)`` into a folder, as a file with the name of ``path``.

    The same volume gives the same bytes. Raises UsageError without tifffile.
    """
    tifffile = package("tifffile", EXTRA, path.name)

    def write(values: NDArray[Any], folder: Path) -> None:
        description = ome_xml(grid, dtype, channel_names, channels, labels)
        tile = (_TILE, _TILE) if min(grid.shape[:2]) >= 2 * _TILE else None
        is_big = values.nbytes + len(description) > _MOST_CLASSIC_BYTES
        with tifffile.TiffWriter(folder / path.name, bigtiff=is_big, byteorder="<", ome=False) as writer:
            for channel, z in np.ndindex(channels, grid.shape[2]):
                writer.write(
                    np.ascontiguousarray(values[channel, :, :, z].T),
                    photometric="minisblack",
                    compression="zlib",
                    tile=tile,
                    description=description if channel == z == 0 else None,
                    metadata=None,
                    software="voxport",
                    contiguous=False,
                    maxworkers=1,
                )
                dropped(values)

    return write


def lost(grid: Grid) -> tuple[str, ...]:
    """Return what OME-TIFF cannot say of a grid."""
    directions = grid.affine[:3, :3]
    if np.array_equal(directions, np.diag(np.diag(directions))) and bool((np.diag(directions) > 0).all()):
        return ()
    what = "directions of axes and their shear" if grid.is_sheared else "directions of axes"
    return (f"OME-TIFF cannot state {what}, here {grid.axis_codes}: the mask keeps the order of the input's voxels",)

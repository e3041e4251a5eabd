"""Names of NIfTI files, and boxes of their voxels."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.geometry.grid import Box, Shape3
from ....domain.volume_names import NIFTI, VolumeNames

NAMES = VolumeNames((NIFTI,))
HEADERS, IMAGES = zip(*NIFTI.pairs, strict=True)


def siblings(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the paths that the other half of a pair may have, the likeliest first: ``HEADERS`` or ``IMAGES``."""
    stem = path.name[: len(path.name) - len(NAMES.ending(path.name))]
    return [path.with_name(stem + form) for forms in (suffixes, map(str.upper, suffixes)) for form in forms]


def box_view(
    mapped: mmap.mmap, dtype: np.dtype[Any], shape: Shape3, channels: int, offset: int, box: Box
) -> NDArray[Any]:
    """Return a view ``(C, x, y, z)`` of the voxels in ``box``. Raises ValueError for a box beyond ``shape``."""
    stored = np.ndarray((*shape, channels), dtype, buffer=mapped, offset=offset, order="F")
    return box.view(np.moveaxis(stored, 3, 0))

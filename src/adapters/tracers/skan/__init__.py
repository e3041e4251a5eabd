"""Paths of centre lines by skan (Nunez-Iglesias et al., 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ....domain.errors import UsageError
from ....domain.labels.comparison import Mask
from ....ports.tracers import LineTracer
from ...arrays import package

_TOUCHING = np.ones((3, 3, 3), np.uint8)


class SkanTracer(LineTracer):
    """`LineTracer` by skan's graph of a skeleton. numba compiles skan once a process, in 2 s."""

    def trace(self, line: Mask) -> tuple[NDArray[np.int64], ...]:
        # skan has no place for a voxel without neighbours
        alone = line & (ndimage.convolve(line.astype(np.uint8), _TOUCHING, mode="constant") == 1)
        single = tuple(np.argwhere(alone)[:, np.newaxis])
        if not (line & ~alone).any():
            return single
        try:
            skeleton = package("skan.csr", "tubular", "paths of centre lines").Skeleton(line & ~alone)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            do = "name one in NUMBA_CACHE_DIR"
            raise UsageError("numba", expected="a folder to compile into", got="none", do=do) from None
        paths = (np.rint(skeleton.path_coordinates(i)).astype(np.int64) for i in range(skeleton.n_paths))
        return (*single, *paths)

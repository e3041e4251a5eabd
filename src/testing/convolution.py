"""A small convolutional network with an asymmetric kernel, so results depend on neighbours and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .affine import write_kernel_onnx


def write_convolution_onnx(
    path: Path, *, classes: int = 2, channels: int = 1, radius: int = 1, fixed: Sequence[int] | None = None
) -> None:
    """Write ONNX: one convolution with random weights, ``2 * radius + 1`` voxels wide and zero-padded.

    ``fixed`` is the spatial shape of its inputs; None for any.
    """
    random = np.random.RandomState(7)
    edge = 2 * radius + 1
    kernel = random.standard_normal((classes, channels, edge, edge, edge)).astype(np.float32)
    kernel -= kernel.mean(axis=(1, 2, 3, 4), keepdims=True)
    write_kernel_onnx(path, kernel, np.zeros(classes, np.float32), fixed or ("i", "j", "k"))

"""Labels in as few bits as their highest value needs: a label map of one structure is an eighth of its size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Shape3


def packed(labels: NDArray[Any], highest: int) -> NDArray[np.uint8]:
    """Return the bits ``(B, N)`` of labels from 0 to ``highest``: a row of bytes for each bit, the lowest first."""
    flat = labels.ravel()
    return np.stack([np.packbits((flat >> bit) & 1) for bit in range(max(1, highest.bit_length()))])


def unpacked(bits: NDArray[np.uint8], shape: Shape3, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the labels that `packed` had."""
    labels = np.zeros(int(np.prod(shape)), dtype)
    for bit, row in enumerate(bits):
        labels |= np.unpackbits(row, count=labels.size).astype(dtype) << bit
    return labels.reshape(shape)

"""A fake runtime that passes the contract suite of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import UsageError
from ..ports.runtime import NetworkShape, RuntimeOptions, check_batch
from ..ports.tensors import closed_network
from .affine import Floats, affine_logits

_ANY: NetworkShape = (None, None, None, None, None)


class FakeRuntime:
    """An `InferenceRuntime` that applies a function, after a box filter of ``radius``.

    Args:
        function: maps a batch ``(N, C, ., ., .)`` to logits ``(N, K, ., ., .)``, voxel by voxel.
        radius: context in voxels on each side; the function gets the zero-padded mean over ``2 * radius + 1`` cubed.
        input_shape: the declared input shape; other batches are refused.
        options: refused unless the precision is fp32.

    ``calls`` holds the shape of each inferred batch.
    """

    name = "fake"
    version = "1"
    device = "cpu"
    precision = "fp32"

    def __init__(
        self,
        function: Callable[[Floats], NDArray[np.floating]],
        *,
        radius: int = 0,
        input_shape: NetworkShape = _ANY,
        options: RuntimeOptions | None = None,
    ) -> None:
        if options is not None and options.precision != "fp32":
            raise UsageError("precision", expected="fp32", got=options.precision, do="leave it out")
        self.input_shape = input_shape
        self.calls: list[tuple[int, ...]] = []
        self.closed = False
        self._function = function
        self._radius = radius
        self._lock = Lock()

    @classmethod
    def affine(
        cls, weights: Floats, bias: Floats, *, radius: int = 0, options: RuntimeOptions | None = None
    ) -> FakeRuntime:
        """``weights @ image + bias``, with weights ``(K, C)`` and a bias ``(K,)``."""
        return cls(
            lambda batch: affine_logits(batch, weights, bias),
            radius=radius,
            input_shape=(None, weights.shape[1], None, None, None),
            options=options,
        )

    def infer(self, batch: Floats) -> Floats:
        """Return logits. Raises ModelError for a batch of another shape, or when closed."""
        check_batch(batch, self.input_shape, "fake runtime")
        with self._lock:
            if self.closed:
                raise closed_network("fake runtime")
            self.calls.append(batch.shape)
        logits = self._function(box_mean(batch, self._radius))
        return np.array(logits, dtype=np.float32, order="C", copy=True)

    def close(self) -> None:
        """Refuse batches from now on."""
        self.closed = True


def box_mean(batch: Floats, radius: int) -> Floats:
    """Return the zero-padded mean over cubes of ``2 * radius + 1`` voxels of a batch ``(N, C, ., ., .)``.

    The order of summation is the same for every voxel, so tiles agree to the last bit.
    """
    mean = batch
    for axis in (2, 3, 4):
        width = [(radius, radius) if a == axis else (0, 0) for a in range(5)]
        padded = np.pad(mean, width)
        size = mean.shape[axis]
        shifted = (padded.take(range(start, start + size), axis) for start in range(2 * radius + 1))
        mean = np.asarray(sum(shifted, np.zeros_like(mean)) / np.float32(2 * radius + 1), dtype=np.float32)
    return mean

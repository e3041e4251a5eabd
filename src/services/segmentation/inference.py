"""Call a runtime in the card's array order, in a thread that leaves the caller interruptible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError
from ...domain.geometry.grid import Shape3
from ...ports.runtime import InferenceRuntime

Fixed3 = tuple[int | None, int | None, int | None]


class Inferer:
    """Infers batches ``(N, C, x, y, z)`` with a runtime, in the array order of the card.

    The runtime works in its own thread, so Ctrl-C ends the caller's wait. A batch of constant tiles reuses the logits
    of an equal previous batch: a runtime gives the same bits for the same batch.

    ``fixed`` are the sizes along x, y and z, None where the network takes any multiple of the divisor. ``batch`` tiles
    a call at most: the network's fixed batch, else the requested one, else 1. ``patch`` is the tuned one. ``seconds``
    were spent inside the network, and the logits of ``repeated`` constant tiles were reused.

    Where the card mirrors, logits are the mean over all mirror images of a batch, each of them a call: they are summed
    in float32, in the order in which nnU-Net sums them.
    """

    def __init__(
        self, runtime: InferenceRuntime, card: ModelCard, batch: int | None = None, patch: Shape3 | None = None
    ) -> None:
        declared, wanted = runtime.input_shape[1], len(card.input.channels)
        if declared is not None and declared != wanted:
            raise ModelError(
                card.reference,
                expected=f"a network with the card's {wanted} input channel(s)",
                got=f"a network with {declared}",
                do="list each of the network's channels in the card's input.channels",
            )
        self._runtime = runtime
        self._card = card
        self._reversed = card.input.axes == "ZYX"
        self._mirrors = mirrors(card)
        a, b, c = runtime.input_shape[2:]
        self.fixed: Fixed3 = (c, b, a) if self._reversed else (a, b, c)
        self.batch = runtime.input_shape[0] or batch or 1
        self.channels = wanted
        self.patch = patch
        self.seconds, self.repeated = 0.0, 0
        self._flat: tuple[tuple[int, ...], bytes, NDArray[np.float32]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="voxport-infer")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits ``(N, K, x, y, z)``. Raises ModelError if the network's channels do not fit the card."""
        return self.begin(batch).result()

    def begin(self, batch: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Start inference of a batch; batches run one after the other."""
        return self._pool.submit(self._infer, batch)

    def measure(self, tile: Shape3, calls: int, on_call: Callable[[], object] = lambda: None) -> float:
        """Return the shortest duration of a call with noise, in seconds a tile, without the first, which warms up."""
        shape = (self.batch, len(self._card.input.channels), *tile)
        noise = np.random.RandomState(0).random_sample(shape).astype(np.float32)
        taken = []
        for _ in range(calls):
            began = time.perf_counter()
            self(noise)
            taken.append(time.perf_counter() - began)
            on_call()
        return min(taken[1:]) / self.batch

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        values, before = flat_values(batch), self._flat
        if values is None:
            return self._mean(self._inferred(np.flip(batch, axes)) for axes in self._mirrors)
        if before is not None and before[:2] == (batch.shape, values):
            self.repeated += len(batch)
            return before[2]
        # Constant tiles are their own mirror images.
        inferred = self._inferred(batch)
        logits = self._mean(inferred for _ in self._mirrors)
        logits.flags.writeable = False
        self._flat = batch.shape, values, logits
        return logits

    def _mean(self, images: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the mean of the logits of all mirror images, each turned back."""
        if len(self._mirrors) == 1:
            return next(iter(images))
        total: NDArray[np.float32] | None = None
        for axes, logits in zip(self._mirrors, images, strict=True):
            if logits.ndim != 5:
                return logits  # refused where it is stitched
            turned = np.flip(logits, axes)
            total = turned.astype(np.float32) if total is None else np.add(total, turned, out=total)
        assert total is not None
        total /= np.float32(len(self._mirrors))
        return total

    def _inferred(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        given, fixed = len(batch), self._runtime.input_shape[0]
        if fixed is not None and given < fixed:
            batch = np.concatenate([batch, np.repeat(batch[-1:], fixed - given, axis=0)])
        handed = np.ascontiguousarray(self._turned(batch))
        began = time.perf_counter()
        inferred = self._runtime.infer(handed)
        self.seconds += time.perf_counter() - began
        logits = self._card.output.channelled(self._turned(inferred)[:given])
        self._card.output.fitted(logits.shape[1])
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def _turned(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.transpose(0, 1, 4, 3, 2) if self._reversed and array.ndim == 5 else array


def mirrors(card: ModelCard) -> tuple[tuple[int, ...], ...]:
    """Return the axes of each mirror image of a batch ``(N, C, x, y, z)``, beginning with the batch itself.

    All combinations of the card's axes, those of few axes first, in the order of the network's axes.
    """
    axes = sorted(card.tiling.mirror, reverse=card.input.axes == "ZYX")
    return tuple(
        tuple(2 + axis for axis in chosen) for count in range(len(axes) + 1) for chosen in combinations(axes, count)
    )


def flat_values(batch: NDArray[np.float32]) -> bytes | None:
    """Return the values ``(N, C)`` of a batch ``(N, C, x, y, z)`` of constant tiles as bytes; None for other batches.

    Compares bits, so 0 and -0 differ.
    """
    bits = batch.view(np.uint32)
    first = bits[:, :, :1, :1, :1]
    # Corners first: comparing all of 2**20 voxels takes 0.5 ms.
    if (bits[:, :, -1:, -1:, -1:] != first).any() or (bits != first).any():
        return None
    return first.tobytes()

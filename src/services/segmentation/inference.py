"""Call a runtime in the card's array order, in a thread that leaves the caller interruptible."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError
from ...ports.runtime import InferenceRuntime

Fixed3 = tuple[int | None, int | None, int | None]


@dataclass(frozen=True, eq=False)
class _Flat:
    """A batch of constant tiles and its logits."""

    shape: tuple[int, ...]
    values: bytes
    logits: NDArray[np.float32]


class Inferer:
    """Infers batches ``(N, C, x, y, z)`` with a runtime, in the array order of the card.

    The runtime works in its own thread, so Ctrl-C ends the caller's wait. A batch of constant tiles reuses the logits
    of an equal previous batch: a runtime gives the same bits for the same batch.
    """

    def __init__(self, runtime: InferenceRuntime, card: ModelCard, batch: int | None = None) -> None:
        self._runtime = runtime
        self._card = card
        self._batch = batch
        self._seconds = 0.0
        self._repeated = 0
        self._flat: _Flat | None = None
        self._reversed = card.input.axes == "ZYX"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="voxport-infer")
        self._check_channels()

    @property
    def fixed(self) -> Fixed3:
        """Fixed sizes along x, y and z; None where the network takes any multiple of the divisor."""
        a, b, c = self._runtime.input_shape[2:]
        return (c, b, a) if self._reversed else (a, b, c)

    @property
    def batch(self) -> int:
        """Maximum number of tiles per call: the network's fixed batch, else the requested one, else 1."""
        return self._runtime.input_shape[0] or self._batch or 1

    @property
    def seconds(self) -> float:
        """Time spent inside the network."""
        return self._seconds

    @property
    def repeated(self) -> int:
        """Number of constant tiles whose logits were reused."""
        return self._repeated

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits ``(N, K, x, y, z)``. Raises ModelError if the network's channels do not fit the card."""
        return self.begin(batch).result()

    def begin(self, batch: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Start inference of a batch; batches run one after the other."""
        return self._pool.submit(self._infer, batch)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        values, before = flat_values(batch), self._flat
        if values is None:
            return self._inferred(batch)
        if before is not None and (before.shape, before.values) == (batch.shape, values):
            self._repeated += len(batch)
            return before.logits
        logits = self._inferred(batch)
        logits.flags.writeable = False
        self._flat = _Flat(batch.shape, values, logits)
        return logits

    def _inferred(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        given, fixed = len(batch), self._runtime.input_shape[0]
        if fixed is not None and given < fixed:
            batch = np.concatenate([batch, np.repeat(batch[-1:], fixed - given, axis=0)])
        handed = np.ascontiguousarray(self._turned(batch))
        began = time.perf_counter()
        inferred = self._runtime.infer(handed)
        self._seconds += time.perf_counter() - began
        logits = self._turned(inferred)[:given]
        self._card.output.fitted(logits.shape[1])
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def _turned(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.transpose(0, 1, 4, 3, 2) if self._reversed and array.ndim == 5 else array

    def _check_channels(self) -> None:
        declared, wanted = self._runtime.input_shape[1], len(self._card.input.channels)
        if declared is not None and declared != wanted:
            raise ModelError(
                self._card.reference,
                expected=f"a network with the card's {wanted} input channel(s)",
                got=f"a network with {declared}",
                do="list each of the network's channels in the card's input.channels",
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

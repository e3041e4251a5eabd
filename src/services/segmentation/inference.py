"""Calling a runtime: the card's array order, the network's fixed sizes, and a wait that Ctrl-C can end."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError
from ...ports.runtime import InferenceRuntime

Fixed3 = tuple[int | None, int | None, int | None]


@dataclass(frozen=True, eq=False)
class _Flat:
    """A call in which each tile had one value in each channel, and what the network answered."""

    shape: tuple[int, ...]
    values: bytes
    logits: NDArray[np.float32]


class Inferer:
    """Scores batches ``(N, C, x, y, z)`` with a runtime whose network may want another array order.

    The runtime works in a thread of its own, so that the caller's wait can be interrupted while native code runs.
    Empty background is not scored again: a call in which each tile has one value in each channel gets the answer to
    the call before that was the same, as a runtime promises the same bits for the same batch.
    """

    def __init__(self, runtime: InferenceRuntime, card: ModelCard, batch: int | None = None) -> None:
        self._runtime = runtime
        self._card = card
        self._batch = batch
        self._seconds = 0.0
        self._repeated = 0
        self._flat: _Flat | None = None
        self._reversed = card.input.axes == "ZYX"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="voxport-score")
        self._check_channels()

    @property
    def fixed(self) -> Fixed3:
        """Sizes along x, y and z that the network insists on; None where any multiple of the divisor goes."""
        a, b, c = self._runtime.input_shape[2:]
        return (c, b, a) if self._reversed else (a, b, c)

    @property
    def batch(self) -> int:
        """Tiles that one call takes at the most: what the network insists on, else what was asked for, else 1."""
        return self._runtime.input_shape[0] or self._batch or 1

    @property
    def seconds(self) -> float:
        """How long the network has worked so far."""
        return self._seconds

    @property
    def repeated(self) -> int:
        """Tiles so far that were not scored, as the network had answered the same call before."""
        return self._repeated

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores ``(N, K, x, y, z)``. Raises ModelError if the network's channels do not fit the card."""
        return self.begin(batch).result()

    def begin(self, batch: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """What ``__call__`` gives, in the making; batches are scored one after the other."""
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
        self._card.output.check_channels(logits.shape[1])
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

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
    """The values ``(N, C)`` of a batch ``(N, C, x, y, z)`` each of whose tiles has one value in each channel, or None.

    Bits are compared, as 0 and -0 are not the same to a network.
    """
    bits = batch.view(np.uint32)
    first = bits[:, :, :1, :1, :1]
    # most tiles that are not flat differ between two corners already: the others take 0.5 ms for 2**20 voxels
    if (bits[:, :, -1:, -1:, -1:] != first).any() or (bits != first).any():
        return None
    return first.tobytes()

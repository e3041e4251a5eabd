"""Scoring batches with a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .model import Model

NetworkShape = tuple[int | None, int | None, int | None, int | None, int | None]


class InferenceRuntime(Protocol):
    """A network that is loaded and ready. Safe for concurrent callers.

    Arrays are in the network's own axes: ``(N, C, x, y, z)`` for a card with axes XYZ, ``(N, C, z, y, x)`` for ZYX.
    """

    @property
    def name(self) -> str:
        """The runtime, as in ``--runtime``: onnx, torch, ..."""
        ...

    @property
    def version(self) -> str:
        """The version of the library that scores."""
        ...

    @property
    def device(self) -> str:
        """Where it scores: cpu, cuda:0, ..."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: fp32, bf16 or int8."""
        ...

    @property
    def input_shape(self) -> NetworkShape:
        """``(N, C, ., ., .)`` as the network declares it; None where any size goes."""
        ...

    def score(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores ``(N, K, ., ., .)`` of a float32 batch ``(N, C, ., ., .)``.

        Raises:
            ModelError: the batch does not fit the network's declared input, the network failed on it, or is closed.
        """
        ...

    def close(self) -> None:
        """Release the network. Closing twice does nothing."""
        ...


@dataclass(frozen=True)
class RuntimeOptions:
    """What a runtime may be asked for when it is opened; None leaves the choice to it."""

    precision: str = "fp32"
    threads: int | None = None


class RuntimeOpener(Protocol):
    """Loads a model into a runtime."""

    def __call__(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:
        """The model, loaded.

        Raises:
            ModelError: the file is not a model that this runtime can load.
            UsageError: the runtime does not offer the precision.
        """
        ...

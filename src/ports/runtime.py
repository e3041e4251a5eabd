"""Scoring batches with a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import LimitError, ModelError
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

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
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


def check_batch(batch: NDArray[np.float32], declared: NetworkShape, subject: str) -> None:
    """Raise ModelError unless a batch is float32 and of the shape that a network declares."""
    fits = batch.ndim == 5 and all(d is None or d == n for d, n in zip(declared, batch.shape, strict=True))
    if not fits or batch.dtype != np.float32:
        wanted = ", ".join("any" if edge is None else str(edge) for edge in declared)
        raise ModelError(
            subject,
            expected=f"a float32 batch of shape ({wanted})",
            got=f"{batch.dtype} {batch.shape}",
            do="correct channels and patch in the model card",
        )


def closed_network(subject: str) -> ModelError:
    """The error for a network that is asked to score after it was closed."""
    return ModelError(subject, expected="an open network", got="a closed one", do="open it again")


def wrong_inputs(subject: str, got: str) -> ModelError:
    """The error for a network that does not take one float32 batch."""
    expected = "a network with one float32 input (N, C, x, y, z)"
    return ModelError(subject, expected=expected, got=got, do="export the network in this form")


def no_memory_for(batch: NDArray[np.float32], subject: str) -> LimitError:
    """The error for a batch that memory had no room for."""
    expected, do = f"memory for a batch of {batch.shape}", "give smaller tiles with --patch"
    return LimitError(subject, expected=expected, got="too little", do=do)


def failed_on(batch: NDArray[np.float32], subject: str, said: str) -> ModelError:
    """The error for a batch that the network failed on, in the library's words."""
    expected, do = f"a network that takes {batch.shape}", "correct patch and divisor in the model card"
    return ModelError(subject, expected=expected, got=said, do=do)

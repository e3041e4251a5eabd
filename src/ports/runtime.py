"""Inferring batches of patches with a network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import ModelError
from .model import Model
from .tensors import LoadedNetwork, SessionOptions, Tensors, TensorSession

RuntimeOptions = SessionOptions
NetworkShape = tuple[int | None, int | None, int | None, int | None, int | None]


class InferenceRuntime(LoadedNetwork, Protocol):
    """A ``LoadedNetwork`` that infers batches of patches.

    Arrays are in the network's own axes: ``(N, C, x, y, z)`` for a card with axes XYZ, ``(N, C, z, y, x)`` for ZYX.
    """

    @property
    def precision(self) -> str:
        """The precision that it computes in: fp32, bf16 or int8."""

    @property
    def input_shape(self) -> NetworkShape:
        """``(N, C, ., ., .)`` as the network declares it; None for a free axis."""

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``(N, K, ., ., .)`` of a float32 batch ``(N, C, ., ., .)``.

        Raises:
            ModelError: the batch does not fit the network's declared input, the network failed on it, or is closed.
            LimitError: memory does not suffice.
        """


class RuntimeOpener(Protocol):
    """Loads a model into a runtime."""

    def __call__(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:
        """The model, loaded.

        Raises:
            ModelError: the file is not a model that this runtime can load.
            UsageError: the runtime does not offer the precision.
        """


class NetworkRuntime:
    """InferenceRuntime over a tensor session whose network has one float32 input of five axes.

    ``output`` names the output with the logits, or gives its index. Without it, it is the only output of the image's
    size, which the first call finds.

    Raises:
        ModelError: the network has other inputs, or no such output.
    """

    def __init__(
        self, session: TensorSession, subject: str, precision: str = "fp32", output: str | None = None
    ) -> None:
        self.session, self.subject, self.precision = session, subject, precision
        self.name, self.version, self.device, self.close = session.name, session.version, session.device, session.close
        inputs = session.inputs
        if len(inputs) != 1 or inputs[0].dtype != "float32" or len(inputs[0].shape) != 5:
            got = ", ".join(map(str, inputs)) or "no input"
            expected = "a network with one float32 input (N, C, x, y, z)"
            do = "export the network in this form"
            if len(inputs) == 1 and len(inputs[0].shape) == 4:
                do = "import it with its card (voxport import): a network for 2-D images is applied slice by slice"
            raise ModelError(subject, expected=expected, got=got, do=do)
        names = [spec.name for spec in session.outputs]
        choice = output if len(names) > 1 or output is not None else names[0]
        if choice is not None and choice not in names:
            if not choice.isdecimal() or int(choice) >= len(names):
                listed, do = ", ".join(map(str, session.outputs)), "correct output.tensor in the model card"
                raise ModelError(subject, expected=f"one of the outputs {listed}", got=choice, do=do)
            choice = names[int(choice)]
        self._output = choice

    @property
    def input_shape(self) -> NetworkShape:
        """See InferenceRuntime."""
        n, c, x, y, z = (edge if isinstance(edge, int) else None for edge in self.session.inputs[0].shape)
        return n, c, x, y, z

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See InferenceRuntime."""
        check_batch(batch, self.input_shape, self.subject)
        wanted = None if self._output is None else [self._output]
        found = self.session.run({self.session.inputs[0].name: batch}, wanted)
        if self._output is None:
            self._output = self._only_on_grid(found, batch)
        return np.ascontiguousarray(found[self._output], dtype=np.float32)

    def _only_on_grid(self, found: Tensors, batch: NDArray[np.float32]) -> str:
        """The only output of the batch's size. Raises ModelError where there are several or none; lists them all."""
        grid = (batch.shape[0], *batch.shape[2:])
        full = [name for name, array in found.items() if array.ndim == 5 and (len(array), *array.shape[2:]) == grid]
        if len(full) == 1:
            return full[0]
        listed = ", ".join(f"{i} {name} {array.shape}" for i, (name, array) in enumerate(found.items()))
        raise ModelError(
            self.subject,
            expected="one output (N, K, x, y, z) of the image's size",
            got=f"{len(full)} of them in: {listed}",
            do="name the one with the logits, or its index, in output.tensor of the model card",
        )


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

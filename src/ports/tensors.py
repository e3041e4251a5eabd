"""Running a network on named tensors of any type and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import InputError, LimitError, ModelError

Tensors = dict[str, NDArray[Any]]
TEXT = "str"  # the type of text tensors; their arrays have dtype object and hold str


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a network takes or gives.

    ``dtype`` is a NumPy name (``float32``, ``int64``, ``bool``) or ``str`` for text. ``shape`` has a number for a fixed
    axis, a name for a free axis that the network names, and None for any other free axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("any" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name}: {self.dtype} ({axes})"


class LoadedNetwork(Protocol):
    """A network that is loaded and ready. Safe for concurrent callers."""

    @property
    def name(self) -> str:
        """The runtime: onnx, openvino, torch, ..."""

    @property
    def version(self) -> str:
        """The library and its version."""

    @property
    def device(self) -> str:
        """The device that computes: cpu, cuda:0, ..."""

    def close(self) -> None:
        """Release the network. Closing twice does nothing."""


class TensorSession(LoadedNetwork, Protocol):
    """A ``LoadedNetwork`` with named inputs and outputs."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that the network takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that the network gives."""

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:
        """Outputs by name, all of them or those named; the arrays are the caller's.

        Raises:
            InputError: names, types or shapes do not fit, see ``check_tensors``.
            LimitError: memory does not suffice.
            ModelError: the network failed, or is closed.
        """


@dataclass(frozen=True)
class SessionOptions:
    """Options of a session: the precision to compute in, and the number of threads (None: the runtime chooses)."""

    precision: str = "fp32"
    threads: int | None = None


def joins_along(session: TensorSession, input_axis: int, output_axis: int) -> bool:
    """Whether these axes of all inputs and of all outputs are free and go by one name."""
    sides = (session.inputs, input_axis), (session.outputs, output_axis)
    sizes = {spec.shape[axis] if axis < len(spec.shape) else 0 for specs, axis in sides for spec in specs}
    return len(sizes) == 1 and not isinstance(sizes.pop(), int)


def check_tensors(
    session: TensorSession, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None, subject: str
) -> None:
    """Raise InputError unless tensors fit the network's specification; names every one that does not.

    Axes that the network calls by one name have one size.
    """
    wrong = list(_wrong_names(session, inputs, outputs))
    sizes: dict[str, int] = {}
    for spec in session.inputs:
        array = inputs.get(spec.name)
        if array is not None and not _fits(spec, array, sizes):
            wrong.append((str(spec), f"{spec.name}: {dtype_name(array.dtype)} {array.shape}"))
    if wrong:
        expected, got = ("; ".join(dict.fromkeys(words)) for words in zip(*wrong, strict=True))
        raise InputError(subject, expected=expected, got=got, do="correct the request")


def dtype_name(dtype: np.dtype[Any]) -> str:
    """A type's name in a ``TensorSpec``."""
    return TEXT if dtype.kind in "OUS" else dtype.name


def _wrong_names(
    session: TensorSession, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    """What was expected and what came, for each name that is missing or unknown."""
    taken, given = [spec.name for spec in session.inputs], [spec.name for spec in session.outputs]
    for name in taken:
        if name not in inputs:
            yield f"an input {name}", f"no {name}"
    for name in inputs:
        if name not in taken:
            yield f"inputs named {', '.join(taken)}", f"an input {name[:80]}"
    for name in outputs or ():
        if name not in given:
            yield f"outputs named {', '.join(given)}", f"an output {name[:80]}"


def _fits(spec: TensorSpec, array: NDArray[Any], sizes: dict[str, int]) -> bool:
    if dtype_name(array.dtype) != spec.dtype or array.ndim != len(spec.shape):
        return False
    return all(
        size == axis if isinstance(axis, int) else axis is None or sizes.setdefault(axis, size) == size
        for axis, size in zip(spec.shape, array.shape, strict=True)
    )


def closed_network(subject: str) -> ModelError:
    """The error of a network that is used after it was closed."""
    return ModelError(subject, expected="an open network", got="a closed one", do="open it again")


def failed_on(inputs: Mapping[str, NDArray[Any]], subject: str, said: str) -> ModelError | LimitError:
    """The error of a network that failed on its inputs, in the library's words; LimitError where memory ran out."""
    shapes = ", ".join(str(array.shape) for array in inputs.values())
    if any(word in said.lower() for word in ("alloc", "memory")):
        do = "give a smaller patch or a smaller batch"
        return LimitError(subject, expected=f"memory for a batch of {shapes}", got="too little", do=do)
    do = "correct patch and divisor in the model card"
    return ModelError(subject, expected=f"a network that takes {shapes}", got=said, do=do)

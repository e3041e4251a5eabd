"""Label maps, label tables, and the decoding of logits to probabilities and labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, UsageError
from ..geometry.grid import Grid

Activation = Literal["softmax", "sigmoid", "none"]
ACTIVATIONS: tuple[Activation, ...] = ("softmax", "sigmoid", "none")
Labels = NDArray[np.unsignedinteger[Any]]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """One label: its value in a label map, its name, and its colour as ``#rrggbb``."""

    value: int
    name: str
    colour: str = "#e4572e"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


@dataclass(frozen=True)
class LabelTable:
    """The labels of a label map. Background, 0, has no entry."""

    labels: tuple[Label, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """Label values in the table's order."""
        return tuple(label.value for label in self.labels)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Smallest unsigned integer type that holds every value."""
        return np.min_scalar_type(max(self.values, default=0))

    def name_of(self, value: int) -> str:
        """Return the name of a value: ``background`` for 0, ``unknown`` for a value outside the table."""
        names = {0: "background"} | {label.value: label.name for label in self.labels}
        return names.get(value, "unknown")


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels ``(X, Y, Z)`` on a grid, with their table. The array is copied and read-only; compares by value."""

    array: Labels
    grid: Grid
    table: LabelTable

    def __post_init__(self) -> None:
        array = np.array(self.array)
        if array.shape != self.grid.shape:
            raise ValueError(f"array: expected {self.grid.shape}, got {array.shape}")
        if not np.issubdtype(array.dtype, np.unsignedinteger):
            raise ValueError(f"array: expected an unsigned integer type, got {array.dtype}")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelMap):
            return NotImplemented
        return (self.grid, self.table) == (other.grid, other.table) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.grid, self.table))


@dataclass(frozen=True)
class Output:
    """A network's output: activation, labels and threshold.

    softmax, none: the channel is the label value, 0 is background; the threshold applies to a single label only.
    sigmoid: the channel is the position in the label table. none: the network emits probabilities.
    """

    activation: Activation
    table: LabelTable
    threshold: float = 0.5

    @property
    def channels(self) -> int:
        """Number of output channels, including background for softmax and none."""
        return len(self.table.labels) + (self.activation != "sigmoid")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the output channels."""
        names = tuple(label.name for label in self.table.labels)
        return names if self.activation == "sigmoid" else ("background", *names)

    def with_threshold(self, threshold: float) -> Output:
        """Return a copy with another threshold of probability.

        Raises:
            UsageError: not between 0 and 1, or several labels share a softmax.
        """
        if not 0 < threshold < 1:
            raise UsageError(
                "threshold", expected="more than 0 and less than 1", got=f"{threshold:g}", do="0.5 is usual"
            )
        if self.activation != "sigmoid" and len(self.table.labels) != 1:
            raise UsageError(
                "threshold",
                expected="a model with one label, or with sigmoid activation",
                got=f"{len(self.table.labels)} labels, decided by the largest logit",
                do="leave it out",
            )
        return replace(self, threshold=threshold)

    def check_channels(self, channels: int) -> None:
        """Raise ModelError unless a network with this many output channels fits the label table."""
        if self.activation == "sigmoid":
            fits, expected = (channels == len(self.table.labels), f"{len(self.table.labels)} channels, one a label")
        else:
            wanted = set(range(1, channels))
            fits = channels >= 2 and set(self.table.values) == wanted
            expected = f"background and one channel for each of the labels {list(self.table.values)}"
        if not fits:
            raise ModelError(
                "network output",
                expected=expected,
                got=f"{channels} channels",
                do="correct output.labels or output.activation in the model card",
            )

    def probabilities(self, logits: Logits) -> Logits:
        """Return the probabilities ``(K, ...)`` of logits ``(K, ...)``."""
        if self.activation == "none":
            return logits
        if self.activation == "sigmoid":
            return np.asarray(_sigmoid(logits), dtype=np.float32)
        shifted = np.exp(logits - logits.max(axis=0, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=0, keepdims=True), dtype=np.float32)

    def labels(self, logits: Logits) -> Labels:
        """Return the label values ``(...)`` of logits ``(K, ...)``.

        softmax, none: arg-max, the lower value on a tie; a single label with a threshold other than 0.5 is compared
        with it. sigmoid: of several labels that reach the threshold, the last in the table wins, so nested regions are
        listed from the outermost inwards.
        """
        if self.activation != "sigmoid" and self.threshold != 0.5:
            return np.asarray(np.where(self.probabilities(logits)[1] >= self.threshold, *self._one_or_none()))
        if self.activation != "sigmoid":
            # Equal to argmax for two classes of finite logits, 50 times faster.
            best = logits[1] > logits[0] if len(logits) == 2 else np.argmax(logits, axis=0)
            return np.asarray(best.astype(self.table.dtype))
        result = np.zeros(logits.shape[1:], self.table.dtype)
        for value, channel in zip(self.table.values, _sigmoid(logits), strict=True):
            result[channel >= self.threshold] = value
        return result

    def _one_or_none(self) -> tuple[np.unsignedinteger[Any], np.unsignedinteger[Any]]:
        return self.table.dtype.type(self.table.values[0]), self.table.dtype.type(0)

    def contested(self, logits: Logits) -> int:
        """Return the number of voxels that reach the sigmoid threshold for more than one label."""
        if self.activation != "sigmoid" or len(logits) < 2:
            return 0
        return int(np.count_nonzero((_sigmoid(logits) >= self.threshold).sum(axis=0) > 1))


def _sigmoid(logits: Logits) -> NDArray[np.float64]:
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))

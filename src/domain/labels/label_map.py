"""Label maps, label tables, and the decoding of logits to probabilities and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, UsageError
from ..geometry.grid import Grid
from .postprocessing import Postprocessing

Activation = Literal["softmax", "sigmoid", "none", "labels"]
ACTIVATIONS: tuple[Activation, ...] = ("softmax", "sigmoid", "none")  # of values that can be blended
# Colours of labels in order, distinct for readers with colour blindness too (Okabe and Ito, 2008).
PALETTE = ("#e4572e", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#999999")
Labels = NDArray[np.unsignedinteger[Any]]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """One label: its value in a label map, its name, and its colour as ``#rrggbb``.

    ``channel`` is the network's output channel, where it is not that of the activation; ``also`` holds further facts.
    """

    value: int
    name: str
    colour: str = "#e4572e"
    channel: int | None = None
    also: Mapping[str, Any] = field(default_factory=dict, hash=False)

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

    softmax: the channel is the label value, 0 is background. sigmoid: the channel is the position in the label table.
    none: the network emits probabilities, in either order; ``fitted`` says which, by the number of channels.
    labels: the network emits a label map, which ``channelled`` turns into a channel for the background and one a label.
    A label's own ``channel`` counts before this order; where the largest logit decides, a channel of no label is
    background too. The threshold applies to a single label, or where each label has a channel of its own.

    ``tensor`` is the name or index of the output with the logits, of a network that has several. ``bounded``: the
    logits are within [0, 1], or whole numbers, without an activation in the network.

    ``resample``: what is brought back to the stored grid, by splines of ``order``: logits, probabilities or labels. The
    label map goes through ``postprocessing`` in order. ``temperature`` calibrates the probabilities that are given out;
    labels do not depend on it.
    """

    activation: Activation
    table: LabelTable
    threshold: float = 0.5
    tensor: str | None = None
    bounded: bool = False
    resample: Literal["logits", "probabilities", "labels"] = "logits"
    order: Literal[0, 1, 3] = 1
    postprocessing: tuple[Postprocessing, ...] = ()
    temperature: float = 1.0
    background: bool | None = field(default=None, compare=False)  # whether ``none`` has a channel for it, once known
    found: int | None = field(default=None, compare=False)  # channels of the network, once known

    @property
    def channels(self) -> int:
        """Number of output channels, including background where it has one."""
        return self.found or 1 + max(self.label_channels, default=0)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the output channels."""
        names = dict(zip(self.label_channels, (label.name for label in self.table.labels), strict=True))
        if not self._is_each:
            names.setdefault(0, "background")
        return tuple(names.get(channel, f"channel {channel}") for channel in range(self.channels))

    @property
    def _is_each(self) -> bool:
        """Whether each label has a channel of its own, beside which the background has none."""
        return self.activation == "sigmoid" or (self.activation == "none" and self.background is False)

    @property
    def _names_channels(self) -> bool:
        return any(label.channel is not None for label in self.table.labels)

    @property
    def label_channels(self) -> tuple[int, ...]:
        """The channel of each label."""
        labels = self.table.labels
        if self.activation == "labels":
            return tuple(range(1, 1 + len(labels)))
        default = range(len(labels)) if self._is_each else self.table.values
        return tuple(n if x.channel is None else x.channel for x, n in zip(labels, default, strict=True))

    @property
    def activated(self) -> Output:
        """The output of a network that emits this one's probabilities."""
        if self.activation not in ("softmax", "sigmoid"):
            return self
        return replace(self, activation="none", background=self.activation == "softmax")

    def with_threshold(self, threshold: float) -> Output:
        """Return a copy with another threshold. Raises UsageError beyond 0 to 1, or if the largest logit decides."""
        if not 0 < threshold < 1:
            raise UsageError(
                "threshold", expected="more than 0 and less than 1", got=f"{threshold:g}", do="0.5 is usual"
            )
        by_largest = self.activation in ("softmax", "labels") or (self.activation == "none" and self.background is True)
        if by_largest and len(self.table.labels) != 1:
            raise UsageError(
                "threshold",
                expected="a model with one label, or with sigmoid activation",
                got=f"{len(self.table.labels)} labels, decided by the largest logit",
                do="leave it out",
            )
        return replace(self, threshold=threshold)

    def fitted(self, channels: int) -> Output:
        """Return the output for so many channels of a network. Raises ModelError if the label table does not fit."""
        values, count = list(self.table.values), len(self.table.labels)
        if self._names_channels and self.activation != "labels":
            return self._fitted_by_channel(channels)
        if self.activation == "sigmoid" or (self.activation == "none" and channels == count):
            if channels != count or not count:
                raise _wrong_channels(f"{count} channels, one for each of the labels {values}", channels)
            return replace(self, background=False, found=channels)
        if channels != count + 1 or not count:
            also = f", or {count} without the background" if self.activation == "none" else ""
            raise _wrong_channels(f"{count + 1} channels, the background and the labels {values}{also}", channels)
        if set(values) != set(range(1, channels)) and self.activation != "labels":
            raise ModelError(
                "network output",
                expected=f"labels with the values of their channels, {list(range(1, channels))}",
                got=str(values),
                do="correct output.labels in the model card, or name the channel of each label (schema 2)",
            )
        found = replace(self, background=True, found=channels)
        return found if self.threshold == found.threshold or count == 1 else found.with_threshold(self.threshold)

    def _fitted_by_channel(self, channels: int) -> Output:
        """As `fitted`, for labels that name their channels."""
        stated = [label.channel for label in self.table.labels]
        each = self.activation == "none" and (0 in stated or channels == len(stated))
        found = replace(self, found=channels, background=None if self.activation == "sigmoid" else not each)
        used = found.label_channels
        if len(set(used)) != len(used) or max(used) >= channels:
            raise _wrong_channels(f"a channel of its own, below {channels}, for each label, got {list(used)}", channels)
        return found if self.threshold == Output.threshold or len(used) == 1 else found.with_threshold(self.threshold)

    def channelled(self, emitted: Logits) -> Logits:
        """Return logits ``(N, K, ...)`` of what the network emits: the same, except for a label map ``(N, 1, ...)``.

        A label map becomes 1 in the channel of the label, or of the background, and 0 in the others. The network emits
        a label's ``channel``, else its value; other numbers are background.

        Raises:
            ModelError: not a label map.
        """
        if self.activation != "labels" or not emitted.size:
            return emitted
        if emitted.shape[1] != 1 or not bool((emitted == np.rint(emitted)).all()):
            got = f"shape {emitted.shape}, {float(emitted.min()):g} to {float(emitted.max()):g}"
            do = "set output.activation to softmax, sigmoid or none in the model card"
            raise ModelError("network output", expected="a label map (N, 1, ...) of whole numbers", got=got, do=do)
        numbers = [label.value if label.channel is None else label.channel for label in self.table.labels]
        inside = np.concatenate([emitted == number for number in numbers], axis=1)
        return np.concatenate([~inside.any(axis=1, keepdims=True), inside], axis=1).astype(np.float32)

    def check_logits(self, logits: Logits) -> None:
        """Raise ModelError for values ``(N, K, ...)`` that were activated in the network already.

        Logits of noise go below 0 or above 1 and are not whole numbers, unlike probabilities and label maps.
        """
        low, high = float(logits.min()), float(logits.max())
        if self.activation in ("none", "labels") or self.bounded or low == high:
            return
        got = None
        if bool((logits == np.rint(logits)).all()):
            got = f"whole numbers from {low:g} to {high:g}, a label map"
        elif low >= 0 and high <= 1:
            got = f"values from {low:.3g} to {high:.3g}, probabilities"
        if got is None:
            return
        do = "set output.activation to none in the model card: the network ends in an activation"
        logits_after_all = "; or, if these are logits, set output.bounded to true"
        raise ModelError(
            "network output", expected=f"logits, as for {self.activation}", got=got, do=do + logits_after_all
        )

    def probabilities(self, logits: Logits) -> Logits:
        """Return the probabilities ``(K, ...)`` of logits ``(K, ...)``."""
        if self.activation in ("none", "labels"):
            return logits
        if self.activation == "sigmoid":
            return np.asarray(_sigmoid(logits), dtype=np.float32)
        shifted = np.exp(logits - logits.max(axis=0, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=0, keepdims=True), dtype=np.float32)

    def calibrated(self, logits: Logits) -> Logits:
        """Return the probabilities ``(K, ...)`` of logits over the temperature (Guo et al., 2017)."""
        if self.temperature == 1:
            return self.probabilities(logits)
        if self.activation in ("softmax", "sigmoid"):
            return self.probabilities(logits / np.float32(self.temperature))
        # probabilities that were resampled: the same, from their logarithms
        powers = np.clip(logits, 1e-30, 1) ** np.float32(1 / self.temperature)
        others = np.clip(1 - logits, 1e-30, 1) ** np.float32(1 / self.temperature)
        return np.asarray(powers / (powers + others if self.background is False else powers.sum(axis=0)))

    def labels(self, logits: Logits) -> Labels:
        """Return the label values ``(...)`` of logits ``(K, ...)``.

        With a background channel: arg-max, the lower value on a tie; a single label with a threshold other than 0.5 is
        compared with it. With a channel a label: of several labels that reach the threshold, the last in the table
        wins, so nested regions are listed from the outermost inwards.
        """
        reached = self._reached(logits)
        if reached is None:
            channels = self.label_channels
            # Equal to argmax for two classes of finite logits, 50 times faster.
            best = logits[1] > logits[0] if len(logits) == 2 else np.argmax(logits, axis=0)
            if channels == self.table.values and not self._names_channels:
                return np.asarray(best.astype(self.table.dtype))
            value_of = np.zeros(len(logits), self.table.dtype)
            value_of[list(channels)] = self.table.values
            return np.asarray(value_of[best.astype(np.intp)])
        result = np.zeros(logits.shape[1:], self.table.dtype)
        for value, inside in zip(self.table.values, reached, strict=True):
            # twenty times faster than a masked assignment
            result *= ~inside
            result += inside * result.dtype.type(value)
        return result

    def contested(self, logits: Logits) -> int:
        """Return the number of voxels that reach the threshold for more than one label."""
        reached = self._reached(logits) if len(self.table.labels) > 1 else None
        return 0 if reached is None else int(np.count_nonzero(reached.sum(axis=0) > 1))

    def of_each_label(self, logits: Logits) -> NDArray[np.floating[Any]] | None:
        """The probability of each label; None where labels share their channels with the background."""
        if not self.is_each(len(logits)):
            return None
        chosen = self._of_labels(logits)
        return _sigmoid(chosen) if self.activation == "sigmoid" else chosen

    def _reached(self, logits: Logits) -> NDArray[np.bool_] | None:
        """Whether each label reaches the threshold, ``(L, ...)``; None where the largest logit decides."""
        if self.is_each(len(logits)):
            chosen = self._of_labels(logits)
            if self.activation != "sigmoid":
                return np.asarray(chosen >= self.threshold)
            return _at_least(self.threshold, chosen, lambda place: _sigmoid(chosen[place]))
        if self.threshold == 0.5:
            return None
        channel = self.label_channels[0]
        if self.activation != "softmax" or len(logits) != 2:
            return np.asarray(self.probabilities(logits)[channel] >= self.threshold)[np.newaxis]
        difference = logits[channel] - logits[1 - channel]
        found = _at_least(self.threshold, difference, lambda place: self.probabilities(logits[:, *place])[channel])
        return found[np.newaxis]

    def _of_labels(self, logits: Logits) -> Logits:
        """The channels of the labels."""
        return logits if self._is_in_order(logits) else logits[list(self.label_channels)]

    def is_each(self, channels: int) -> bool:
        """Whether each label has a probability of its own in so many channels."""
        own = self.background is False or (self.background is None and channels == len(self.table.labels))
        return self.activation == "sigmoid" or (self.activation == "none" and own)

    def _is_in_order(self, logits: Logits) -> bool:
        """Whether the labels have the network's channels in the table's order, or the largest logit decides."""
        in_order = self.label_channels == tuple(range(len(logits)))
        return in_order or not self._is_each or not self._names_channels


def _wrong_channels(expected: str, channels: int) -> ModelError:
    do = "correct output.labels or output.activation in the model card"
    if channels == 1:
        do += "; activation labels (schema 2) is for a network that emits a label map"
    return ModelError("network output", expected=expected, got=f"{channels} channels", do=do)


def _at_least(
    threshold: float, odds: Logits, probabilities: Callable[[tuple[Any, ...]], NDArray[np.floating[Any]]]
) -> NDArray[np.bool_]:
    """Whether probabilities reach a threshold, by their log-odds; ``probabilities`` computes those near it, by index.

    A rounding of a probability by 1e-7 is one of its log-odds by 1e-7 / (p (1 - p)).
    """
    limit = math.log(threshold / (1 - threshold))
    doubt = 1e-3 + 1e-6 / max(threshold * (1 - threshold), 1e-30)
    reached = odds >= limit + doubt
    doubtful = np.flatnonzero(reached != (odds >= limit - doubt))
    if doubtful.size:
        place = np.unravel_index(doubtful, odds.shape)  # many times faster than an index of booleans
        reached[place] = probabilities(place) >= threshold
    return reached


def _sigmoid(logits: Logits) -> NDArray[np.float64]:
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))

"""How uncertain the label of each voxel is: entropy and margin of its probabilities, and how far patches differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_map import Logits, Output

Levels = NDArray[np.uint8]

# Channels of an uncertainty map, in per cent: finer levels are noise, which takes long to compress.
CHANNELS = ("entropy", "margin", "disagreement")
MOST = 100
CERTAIN = (0, MOST, 0)
# Places in the tables of two classes. Logits beyond +-16 have an entropy below half a level.
_PLACES, _REACH = 2**13, 16.0
_AT_ONCE = 2**15


class UncertaintyScale:
    """Gives the uncertainty of an output's logits in per cent, 0 to 100.

    Entropy is Shannon's, over that of equal probabilities: 100 where nothing is known, 0 where all is certain. Margin
    is 0 where two labels are equally good, and 100 where one is certain: the difference of the two largest
    probabilities; of a label that is compared with a threshold, the distance to that, over the distance between
    threshold and certainty. Where each label has a channel of its own, the most uncertain label counts. For the
    disagreement see `Disagreement`.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        # Between two classes both are looked up: this takes a fifth of the time, and rounds alike on every machine.
        share = np.arange(_PLACES + 1) / _PLACES
        if output.activation == "softmax":
            share = 1 / (1 + np.exp(-(2 * share - 1) * _REACH))
        share, t = _tempered(share, output.temperature), float(_tempered(output.threshold, output.temperature))
        other = 1 - share
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nan_to_num(share * np.log2(share)) - np.nan_to_num(other * np.log2(other))
        margin = np.where(share >= t, (share - t) / (1 - t), (t - share) / t)
        self._entropy, self._margin = _levels(entropy), _levels(margin)

    def of(self, logits: Logits, disagreement: NDArray[np.float32] | None = None) -> Levels:
        """Return the levels ``(3, x, y, z)`` of logits ``(K, x, y, z)`` and, where patches overlap, a disagreement."""
        found = np.empty((3, *reversed(logits.shape[1:])), np.uint8).transpose(0, 3, 2, 1)  # as most files are stored
        for part in bricks(logits.shape[1:]):
            found[0][part], found[1][part] = self._part(logits[:, *part])
            found[2][part] = 0 if disagreement is None else _levels(disagreement[part])
        return found

    def _part(self, logits: Logits) -> tuple[Levels, Levels]:
        output = self._output
        each = output.of_each_label(logits)
        if each is not None:
            places = _places(each, _PLACES, 0)
            return self._entropy[places].max(axis=0), self._margin[places].min(axis=0)
        if len(logits) == 2:
            label = output.label_channels[0]
            if output.activation == "softmax":
                places = _places(logits[label] - logits[1 - label], _PLACES / (2 * _REACH), _PLACES / 2)
            else:
                places = _places(logits[label], _PLACES, 0)
            return self._entropy[places], self._margin[places]
        share = np.clip(output.calibrated(np.ascontiguousarray(logits)), 0, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nan_to_num(share * np.log(share)).sum(axis=0) / math.log(len(share))
        second, first = np.partition(share, -2, axis=0)[-2:]
        return _levels(entropy), _levels(first - second)


def _tempered(share: Any, temperature: float) -> Any:
    """Return probabilities of two classes whose logits are divided by a temperature."""
    return share if temperature == 1 else (one := share ** (1 / temperature)) / (one + (1 - share) ** (1 / temperature))


def bricks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield parts of a volume whose working arrays fit the cache, whether x or z is contiguous in memory."""
    x, z = min(shape[0], 256), min(shape[2], 32)
    edges = x, max(1, _AT_ONCE // (x * z)), z
    for start in product(*(range(0, length, edge) for length, edge in zip(shape, edges, strict=True))):
        yield tuple(slice(at, at + edge) for at, edge in zip(start, edges, strict=True))


def _places(values: NDArray[np.floating[Any]], scale: float, middle: float) -> NDArray[np.intp]:
    return np.asarray(np.rint(np.clip(values * scale + middle, 0, _PLACES)), np.intp)


def _levels(values: NDArray[np.floating[Any]]) -> Levels:
    return np.asarray(np.rint(MOST * np.clip(values, 0, 1)), np.uint8)

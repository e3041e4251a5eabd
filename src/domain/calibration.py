"""Calibration of probabilities by a temperature that logits are divided by (Guo et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .labels.label_map import Logits, Output

_MOST_VOXELS = 2**18  # of a case
_LEAST = 1e-7  # probability; float32 holds no larger one below 1 than 1 - 6e-8
_LARGEST = 20.0  # temperature, and the inverse of the smallest
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and the expected calibration error (ECE) without it and with it.

    The error is the mean, over voxels, of the difference between the mean probability and the share of true voxels in
    the tenth that the voxel's probability is in; of several labels, the mean over them. ``ece_held_out``: each case at
    the temperature of the others; None of a single case.
    """

    temperature: float
    cases: int
    voxels: int
    ece_before: float
    ece_after: float
    ece_held_out: float | None


@dataclass(frozen=True, eq=False)
class CalibrationSample:
    """Voxels of a case: logarithms of probabilities ``(K, N)``, the true class ``(N,)``, and the class of no label."""

    logits: NDArray[np.float64]
    classes: NDArray[np.intp]
    background: int

    @classmethod
    def of(cls, probabilities: Logits, truth: NDArray[Any], output: Output) -> CalibrationSample:
        """Draw voxels, at most 2**18, of probabilities ``(K, x, y, z)`` and true label values ``(x, y, z)``."""
        check_can_be_calibrated(output)
        chosen = np.arange(truth.size)
        if truth.size > _MOST_VOXELS:
            chosen = np.random.default_rng(0).integers(0, truth.size, _MOST_VOXELS)
        at = np.unravel_index(chosen, truth.shape)
        shares, values = np.stack([channel[at] for channel in probabilities]).astype(np.float64), truth[at]
        channels = output.label_channels
        if output.activation == "sigmoid":
            one = shares[channels[0]]
            shares, channels = np.stack([1 - one, one]), (1,)
        background = next((channel for channel in range(len(shares)) if channel not in channels), 0)
        classes = np.full(values.shape, background, np.intp)
        for value, channel in zip(output.table.values, channels, strict=True):
            classes[values == value] = channel
        return cls(np.log(np.clip(shares, _LEAST, 1)), classes, background)

    def loss(self, temperature: float) -> float:
        """Return the summed negative logarithm of the true classes' probabilities."""
        scaled = self.logits / temperature
        scaled -= scaled.max(axis=0)
        true = np.take_along_axis(scaled, self.classes[np.newaxis], axis=0)
        return float((np.log(np.exp(scaled).sum(axis=0)) - true).sum())

    def error(self, temperature: float) -> float:
        """Return the expected calibration error; see `Calibration`."""
        scaled = self.logits / temperature
        shares = np.exp(scaled - scaled.max(axis=0))
        shares /= shares.sum(axis=0)
        errors = []
        for label in (k for k in range(len(shares)) if k != self.background):
            tenth = np.minimum((shares[label] * _BINS).astype(np.intp), _BINS - 1)
            excess = np.bincount(tenth, shares[label] - (self.classes == label), _BINS)
            errors.append(np.abs(excess).sum() / len(tenth))
        return float(np.mean(errors))


def check_can_be_calibrated(output: Output) -> None:
    """Raise UsageError unless the network gives logits of classes that exclude each other."""
    if output.activation == "softmax" or (output.activation == "sigmoid" and len(output.table.labels) == 1):
        return
    expected = "a network with softmax over its classes, or with sigmoid and one label"
    got = f"{output.activation} and {len(output.table.labels)} labels"
    raise UsageError("model", expected=expected, got=got, do="leave its probabilities as they are")


def fit_temperature(samples: Sequence[CalibrationSample]) -> Calibration:
    """Fit the temperature, 1/20 to 20, with the least loss over all voxels, each case counted alike."""
    temperature = _fitted(samples)
    pairs = [(sample, _fitted([*samples[:i], *samples[i + 1 :]])) for i, sample in enumerate(samples) if samples[1:]]
    held_out = float(np.mean([sample.error(other) for sample, other in pairs])) if pairs else None
    before, after = (float(np.mean([sample.error(at) for sample in samples])) for at in (1.0, temperature))
    voxels = sum(len(sample.classes) for sample in samples)
    return Calibration(temperature, len(samples), voxels, before, after, held_out)


def _fitted(samples: Sequence[CalibrationSample]) -> float:
    from scipy.optimize import minimize_scalar  # takes tenths of a second

    def loss(logarithm: float) -> float:
        return sum(sample.loss(math.exp(logarithm)) / len(sample.classes) for sample in samples)

    most = math.log(_LARGEST)
    return math.exp(float(minimize_scalar(loss, bounds=(-most, most), method="bounded", options={"xatol": 1e-4}).x))

"""Parity: compare the logits and labels of two networks, and record the result in a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .labels.label_map import Labels, LabelTable, Logits, Output

LEAST_LABEL_AGREEMENT = 0.99999
LARGEST_PROBABILITY_DIFFERENCE = 1e-4
_ROUNDING = 4e-6  # of log-odds, in another order of the sums: 1e-6 of a probability of one half
SAMPLES_PER_INPUT = 32
FULL_PRECISION = "fp32"


@dataclass(frozen=True)
class Bounds:
    """Lower bounds for accepting another precision or patch.

    ``label_agreement``: share of voxels with equal labels. ``dice``: Dice coefficient of each label.
    """

    label_agreement: float = 0.999
    dice: float = 0.999


BOUNDS = Bounds()


@dataclass(frozen=True)
class Agreement:
    """Share of voxels with equal labels, and Dice of each label in the table's order (1 if neither map has it)."""

    label_agreement: float
    dice: tuple[float, ...]

    def within(self, bounds: Bounds) -> bool:
        """Return whether every value reaches its bound."""
        return self.label_agreement >= bounds.label_agreement and all(dice >= bounds.dice for dice in self.dice)


@dataclass(frozen=True)
class Parity(Agreement):
    """Agreement of a candidate's labels with the reference's, and the largest difference of probabilities."""

    max_probability_difference: float
    logit_spread: float = field(default=0.0, compare=False)

    @property
    def holds(self) -> bool:
        """Return whether the candidate equals the reference to fp32 accuracy."""
        return (
            1 - self.label_agreement <= (1 - LEAST_LABEL_AGREEMENT) * self.slack
            and self.max_probability_difference <= LARGEST_PROBABILITY_DIFFERENCE * self.slack
        )

    @property
    def slack(self) -> float:
        """The factor, 1 to 10, by which the bounds are wider for logits that spread over more than 4.

        Rounding grows with the logits: some 2e-5 of their spread in a U-Net of six stages, a quarter of it in
        probabilities.
        """
        return min(max(self.logit_spread / 4, 1.0), 10.0)

    def within(self, bounds: Bounds) -> bool:
        """Return whether labels are within the bounds and no probability is NaN."""
        return super().within(bounds) and self.max_probability_difference <= 1


def compare(reference: Sequence[Logits], candidate: Sequence[Logits], output: Output) -> Parity:
    """Compare arrays of logits ``(N, K, X, Y, Z)``, pooled over all voxels.

    Labels that differ where all probabilities are equal to float32 accuracy are a tie, and count as equal.
    """
    largest = spread = 0.0
    tie = _ROUNDING * output.threshold * (1 - output.threshold)
    labels: list[tuple[Labels, Labels]] = []
    for one, other in zip(reference, candidate, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"logits: expected the same shape, got {one.shape} and {other.shape}")
        spread = max(spread, float(np.ptp(one)))
        for a, b in zip(one, other, strict=True):
            of_a, of_b = output.labels(a), output.labels(b)
            if output.activation != "labels":  # labels have no probabilities that differ a little
                differences = np.abs(output.probabilities(a) - output.probabilities(b)).max(axis=0)
                largest = float(np.maximum(largest, differences.max()))  # unlike max, keeps a NaN, which never holds
                of_b = np.where(differences <= tie, of_a, of_b)
            labels.append((of_a.ravel(), of_b.ravel()))
    wanted, got = (np.concatenate(side) for side in zip(*labels, strict=True))
    found = compare_labels(wanted, got, output.table)
    return Parity(found.label_agreement, found.dice, largest, spread)


def compare_labels(reference: Labels, candidate: Labels, table: LabelTable) -> Agreement:
    """Compare two label arrays of the same shape."""
    dice = []
    for value in table.values:
        one, other = reference == value, candidate == value
        size = np.count_nonzero(one) + np.count_nonzero(other)
        dice.append(float(2 * np.count_nonzero(one & other) / size) if size else 1.0)
    return Agreement(np.count_nonzero(reference == candidate) / reference.size, tuple(dice))


@dataclass(frozen=True)
class RuntimeParity:
    """Parity of one runtime and precision with the source network."""

    runtime: str
    precision: str
    version: str
    parity: Parity

    def holds(self, bounds: Bounds = BOUNDS) -> bool:
        """Return whether parity holds: to fp32 accuracy in fp32, within ``bounds`` in other precisions."""
        return self.parity.holds if self.precision == FULL_PRECISION else self.parity.within(bounds)


@dataclass(frozen=True)
class ProbeInput:
    """A reproducible network input with a sample of the source network's probabilities.

    The input is uniform noise in ``[0, 1)`` of ``shape`` ``(N, C, x, y, z)``, in the network's own axes.
    ``probabilities`` are sampled at flat positions drawn from ``seed``, so parity can be checked without the source
    network.
    """

    shape: tuple[int, int, int, int, int]
    seed: int
    probabilities: tuple[float, ...] = ()

    def array(self) -> NDArray[np.float32]:
        """Return the input. RandomState gives the same stream in every version of numpy."""
        return np.random.RandomState(self.seed).random_sample(self.shape).astype(np.float32)

    def sampled(self, logits: Logits, output: Output) -> tuple[float, ...]:
        """Return the probabilities of ``logits`` ``(N, K, x, y, z)`` at this probe's positions."""
        flat = np.stack([output.probabilities(case) for case in logits]).ravel()
        at = np.random.RandomState(self.seed + 1).randint(0, flat.size, SAMPLES_PER_INPUT)
        return tuple(float(p) for p in flat[at])


@dataclass(frozen=True)
class PipelineParity(Agreement):
    """Agreement of a model's labels with those of its source framework's own inference on a volume."""

    framework: str
    version: str
    volume: str
    volume_sha256: str


@dataclass(frozen=True)
class Certificate:
    """Proof of parity for a model file: hash of the weights, probes, and the parity of each runtime.

    ``pipeline`` holds comparisons of whole runs with the source framework.
    """

    weights_sha256: str
    date: str
    probes: tuple[ProbeInput, ...]
    runtimes: tuple[RuntimeParity, ...]
    pipeline: tuple[PipelineParity, ...] = ()

    def certifies(self, runtime: str, precision: str, bounds: Bounds = BOUNDS) -> bool:
        """Return whether this runtime and precision were compared and are within the bounds."""
        return any((r.runtime, r.precision) == (runtime, precision) and r.holds(bounds) for r in self.runtimes)

    def mentions(self, runtime: str, precision: str) -> bool:
        """Return whether this runtime and precision were compared, within the bounds or not."""
        return any((r.runtime, r.precision) == (runtime, precision) for r in self.runtimes)

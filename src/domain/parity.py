"""Parity: are two networks the same network? Comparing score volumes, and the certificate that records it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .labels.label_map import Labels, LabelTable, Logits, Output

LEAST_LABEL_AGREEMENT = 0.99999
LARGEST_PROBABILITY_DIFFERENCE = 1e-4
SAMPLES_PER_INPUT = 32
FULL_PRECISION = "fp32"


@dataclass(frozen=True)
class Bounds:
    """What makes other labels as good as the reference's: those of a lower precision, or of other tiles.

    ``label_agreement`` is the least share of voxels that agree, ``dice`` the least Dice of each label.
    """

    label_agreement: float = 0.999
    dice: float = 0.999


BOUNDS = Bounds()


@dataclass(frozen=True)
class Agreement:
    """How far labels are from the reference's: share of voxels that agree, and Dice of each label in the table's order.

    Dice is 1 where neither has the label.
    """

    label_agreement: float
    dice: tuple[float, ...]

    def within(self, bounds: Bounds) -> bool:
        """Whether these labels are as good as the reference's."""
        return self.label_agreement >= bounds.label_agreement and all(dice >= bounds.dice for dice in self.dice)


@dataclass(frozen=True)
class Parity:
    """How far a candidate's scores are from the reference's; label agreement and Dice as in Agreement."""

    label_agreement: float
    dice: tuple[float, ...]
    max_probability_difference: float

    @property
    def holds(self) -> bool:
        """Whether the candidate is the same network to fp32 accuracy."""
        return (
            self.label_agreement >= LEAST_LABEL_AGREEMENT
            and self.max_probability_difference <= LARGEST_PROBABILITY_DIFFERENCE
        )

    def within(self, bounds: Bounds) -> bool:
        """Whether the candidate's labels are as good as the reference's, and no probability is NaN."""
        labels = Agreement(self.label_agreement, self.dice)
        return labels.within(bounds) and self.max_probability_difference <= 1


def compare(reference: Sequence[Logits], candidate: Sequence[Logits], output: Output) -> Parity:
    """Parity over several score volumes ``(N, K, X, Y, Z)``, pooled over all voxels."""
    largest = 0.0
    counts = _Counts(output.table.values)
    for one, other in zip(reference, candidate, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"scores: expected the same shape, got {one.shape} and {other.shape}")
        for a, b in zip(one, other, strict=True):
            difference = np.abs(output.probabilities(a) - output.probabilities(b)).max()
            largest = float(np.maximum(largest, difference))  # unlike max, keeps a NaN, which never holds
            counts.add(output.labels(a), output.labels(b))
    found = counts.agreement()
    return Parity(found.label_agreement, found.dice, largest)


def compare_labels(reference: Labels, candidate: Labels, table: LabelTable) -> Agreement:
    """Agreement of two arrays of labels of the same shape."""
    counts = _Counts(table.values)
    counts.add(reference, candidate)
    return counts.agreement()


class _Counts:
    """Voxels that agree, and each label's overlap and sizes, over as many arrays as are added."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = values
        self._same = self._voxels = 0
        self._overlap, self._size = np.zeros(len(values)), np.zeros(len(values))

    def add(self, one: Labels, other: Labels) -> None:
        self._same += int(np.count_nonzero(one == other))
        self._voxels += one.size
        for i, value in enumerate(self._values):
            in_one, in_other = one == value, other == value
            self._overlap[i] += np.count_nonzero(in_one & in_other)
            self._size[i] += np.count_nonzero(in_one) + np.count_nonzero(in_other)

    def agreement(self) -> Agreement:
        dice = np.divide(2 * self._overlap, self._size, out=np.ones(len(self._values)), where=self._size > 0)
        return Agreement(self._same / self._voxels, tuple(float(d) for d in dice))


@dataclass(frozen=True)
class RuntimeParity:
    """One runtime and precision that was compared with the source network."""

    runtime: str
    precision: str
    version: str
    parity: Parity

    def holds(self, bounds: Bounds = BOUNDS) -> bool:
        """Whether it stands for the source network: in fp32 to the accuracy of fp32, else within the bounds."""
        return self.parity.holds if self.precision == FULL_PRECISION else self.parity.within(bounds)


@dataclass(frozen=True)
class ProbeInput:
    """A reproducible network input, and a few of the source network's probabilities on it.

    The input is uniform noise from ``seed`` in ``[0, 1)`` of ``shape`` ``(N, C, x, y, z)``, in the network's own axes.
    ``probabilities`` are those at the flat positions that the same seed draws, so that parity can be proved again
    where the source network is not at hand.
    """

    shape: tuple[int, int, int, int, int]
    seed: int
    probabilities: tuple[float, ...] = ()

    def array(self) -> NDArray[np.float32]:
        """The input; RandomState's stream is frozen, so it is the same with every numpy."""
        return np.random.RandomState(self.seed).random_sample(self.shape).astype(np.float32)

    def sampled(self, logits: Logits, output: Output) -> tuple[float, ...]:
        """Probabilities of ``scores`` ``(N, K, x, y, z)`` at this probe's positions."""
        flat = np.stack([output.probabilities(case) for case in logits]).ravel()
        at = np.random.RandomState(self.seed + 1).randint(0, flat.size, SAMPLES_PER_INPUT)
        return tuple(float(p) for p in flat[at])


@dataclass(frozen=True)
class Certificate:
    """What was proved about a model file: the hash of its weights, the probes, and each runtime that holds."""

    weights_sha256: str
    date: str
    probes: tuple[ProbeInput, ...]
    runtimes: tuple[RuntimeParity, ...]

    def certifies(self, runtime: str, precision: str, bounds: Bounds = BOUNDS) -> bool:
        """Whether this runtime and precision were compared with the source network and held."""
        return any((r.runtime, r.precision) == (runtime, precision) and r.holds(bounds) for r in self.runtimes)

    def with_runtime(self, added: RuntimeParity, date: str) -> Certificate:
        """The certificate with one runtime's entry added or replaced."""
        others = tuple(r for r in self.runtimes if (r.runtime, r.precision) != (added.runtime, added.precision))
        return Certificate(self.weights_sha256, date, self.probes, (*others, added))

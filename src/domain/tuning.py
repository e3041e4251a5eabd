"""Measurements of a model on one machine, and the configuration chosen from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .geometry.grid import Shape3
from .parity import Agreement, Bounds


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement: processor, number of threads, versions of the libraries."""

    processor: str
    threads: int
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Choice:
    """A configuration of inference: runtime, precision, threads, ``patch`` in voxels (x, y, z), tiles a call."""

    runtime: str
    precision: str
    threads: int
    patch: Shape3
    batch: int = 1

    def __str__(self) -> str:
        edges = "x".join(map(str, self.patch))
        together = f", {self.batch} tiles a call" if self.batch > 1 else ""
        return f"{self.runtime} {self.precision}, {self.threads} thread(s), tiles of {edges}{together}"


@dataclass(frozen=True)
class Candidate:
    """A measured configuration: its run time and the agreement of its labels with the reference.

    ``agreement`` is None if the run did not finish; ``note`` gives the reason. ``proves`` is False if too few voxels
    carry a label for their agreement to mean anything.
    """

    choice: Choice
    seconds: float | None = None
    agreement: Agreement | None = None
    proves: bool = True
    note: str = ""

    def holds(self, bounds: Bounds) -> bool:
        """Return whether this configuration may replace the reference."""
        return self.agreement is not None and self.proves and self.agreement.within(bounds)


@dataclass(frozen=True)
class Tuning:
    """The measurements of one model on one machine.

    ``model`` is the key of weights and card, see ``model_key``; ``name`` is ``name:version``; ``volume`` names the
    segmented volume. The first candidate is the reference, fp32 with the card's patch.
    """

    model: str
    name: str
    machine: Machine
    date: str
    volume: str
    candidates: tuple[Candidate, ...]
    choice: Choice
    quantised_sha256: str | None = None

    def chosen(self, bounds: Bounds) -> Choice | None:
        """Return the choice if its measurement is within these bounds."""
        return next((c.choice for c in self.candidates if c.choice == self.choice and c.holds(bounds)), None)

    def fastest(self, precision: str, bounds: Bounds) -> Choice | None:
        """Return the fastest configuration of this precision within the bounds."""
        able = [c for c in self.candidates if c.choice.precision == precision and c.holds(bounds)]
        return min(able, key=lambda c: c.seconds or 0.0).choice if able else None


@dataclass(frozen=True)
class Tradeoff:
    """Time of all labelled cases and mean Dice of each label, for a runtime, precision and overlap.

    ``beaten``: another is at least as fast and as accurate, and better in one of both.
    """

    runtime: str
    precision: str
    overlap: float
    tiles: int
    seconds: float
    dice: tuple[float, ...]
    beaten: bool = False

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels."""
        return sum(self.dice) / len(self.dice)

    def beats(self, other: Tradeoff) -> bool:
        """Return whether this is at least as fast and as accurate as another, and better in one of both."""
        mine, its = (self.seconds, -self.mean_dice), (other.seconds, -other.mean_dice)
        return mine != its and mine[0] <= its[0] and mine[1] <= its[1]


def mark_beaten(found: Sequence[Tradeoff]) -> tuple[Tradeoff, ...]:
    """Return the same trade-offs; ``beaten`` says which of them another one beats."""
    return tuple(replace(one, beaten=any(other.beats(one) for other in found)) for one in found)

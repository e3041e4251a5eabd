"""What was measured of a model on one machine, and the way to score that was chosen from it."""

from __future__ import annotations

from dataclasses import dataclass

from .geometry.grid import Shape3
from .parity import Agreement, Bounds


@dataclass(frozen=True)
class Machine:
    """What a measurement holds for: the processor, how many of its cores score, and the libraries' versions."""

    processor: str
    threads: int
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Choice:
    """A way to score: runtime, precision, threads, ``patch`` edges in voxels (x, y, z), and tiles a call."""

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
    """A way to score, the seconds that it took, and its labels' agreement with the reference's.

    ``agreement`` is None where it was not run to its end, and ``note`` says why; ``proves`` is False where the labels
    agree but cannot show anything, as there are hardly any.
    """

    choice: Choice
    seconds: float | None = None
    agreement: Agreement | None = None
    proves: bool = True
    note: str = ""

    def holds(self, bounds: Bounds) -> bool:
        """Whether this may stand in for the reference."""
        return self.agreement is not None and self.proves and self.agreement.within(bounds)


@dataclass(frozen=True)
class Tuning:
    """What was measured of a model on a machine.

    Args:
        model: identifies weights and card, see ``model_key``.
        name: the model's ``name:version``, for people.
        machine: where it was measured.
        date: when, as YYYY-MM-DD.
        volume: what on.
        candidates: all ways that were tried; the first is the reference, fp32 with the card's tiles.
        choice: the one that was kept.
        quantised_sha256: of the quantised network, if one was kept.
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
        """The choice, if what was measured of it keeps to these bounds."""
        return next((c.choice for c in self.candidates if c.choice == self.choice and c.holds(bounds)), None)

    def fastest(self, precision: str, bounds: Bounds) -> Choice | None:
        """The fastest way to score in a precision that keeps to the bounds."""
        able = [c for c in self.candidates if c.choice.precision == precision and c.holds(bounds)]
        return min(able, key=lambda c: c.seconds or 0.0).choice if able else None

"""What was measured of models on this machine, and the quantised networks that were derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..domain.parity import RuntimeParity
from ..domain.tuning import Machine, Tuning


@dataclass(frozen=True)
class FoundTuning:
    """The tuning of a model on a machine, if there is one; a warning where something is there that cannot be used."""

    tuning: Tuning | None = None
    warning: str | None = None


class TuningStore(Protocol):
    """Keeps one tuning, and one comparison of runtimes, for each model and machine. Safe for concurrent callers."""

    def find(self, model: str, machine: Machine) -> FoundTuning:
        """The tuning; a record that is damaged, or of another model or machine, is none. Never raises."""

    def put(self, tuning: Tuning, quantised: Path | None = None) -> None:
        """Keep a tuning in the place of the one before, with a copy of its quantised network; all or nothing.

        Raises:
            OutputError: it cannot be written.
            ValueError: ``quantised`` is missing where the tuning has one, or is another file than it says.
        """

    def quantised(self, tuning: Tuning) -> Path | None:
        """The quantised network of a tuning that was put; None if it has none, or the file is no longer the same."""

    def comparison(self, model: str, machine: Machine) -> RuntimeParity | None:
        """The comparison of two runtimes; None without one, or where it is damaged. Never raises."""

    def put_comparison(self, model: str, machine: Machine, parity: RuntimeParity) -> None:
        """Keep a comparison in the place of the one before; all or nothing.

        Raises:
            OutputError: it cannot be written.
        """

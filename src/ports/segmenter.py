"""Segment cases, on this machine or on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..domain.cards.model_card import ModelCard
from ..domain.geometry.grid import Shape3
from ..domain.run import Outputs, RunOptions
from .progress import ProgressListener


@dataclass(frozen=True)
class Offer:
    """A model that is ready to segment."""

    card: ModelCard
    default: bool


@dataclass(frozen=True)
class Capacity:
    """What one machine gives to a run of one model: enough to estimate the run from the case alone.

    ``fixed`` are the sizes (x, y, z) that the network insists on, ``batch`` the patches of one call, ``patch`` the
    patch that was tuned for the machine, ``free_bytes`` the memory for blending, and ``resident_bytes`` the memory that
    the process holds at its peak already.
    """

    seconds_per_voxel: float
    fixed: tuple[int | None, int | None, int | None]
    batch: int
    patch: Shape3 | None
    free_bytes: int
    resident_bytes: int
    warning: str | None = None


@dataclass(frozen=True)
class RunEstimate:
    """Tiles, time and peak memory of a run, and what looks wrong about the case."""

    tiles: int
    seconds: float
    peak_bytes: int
    warnings: tuple[str, ...]


class Segmenter(Protocol):
    """Segments cases. Safe for several threads; every method raises ``VoxportError``."""

    @property
    def url(self) -> str | None:
        """Address of the server that segments; None for this machine."""

    def offers(self) -> Sequence[Offer]:
        """Models that are ready, the default first."""

    def card(self, model: str) -> ModelCard:
        """Card of the model ``name:version``. Raises VoxportError for an unknown model."""

    def estimate(
        self, inputs: Sequence[str], model: str, options: RunOptions, progress: ProgressListener
    ) -> RunEstimate:
        """Estimate a run without segmenting. Raises the errors that the run would raise before inference."""

    def segment(
        self,
        inputs: Sequence[str],
        model: str | None,
        outputs: Outputs,
        options: RunOptions,
        progress: ProgressListener,
    ) -> Mapping[str, Any]:
        """Segment a case and write its outputs, except the report, which is returned.

        ``model`` is a ``name:version``, None the default. Inputs and outputs have the caller's names in the report.
        ``progress`` is asked several times a second, also by another thread and with ``advance(0)``; a run that it
        cancels raises CancelledError and leaves nothing under the final names.
        """

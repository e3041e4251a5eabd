"""Options and outputs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Literal

from .errors import UsageError
from .inference.patches import Blending
from .volume_names import PACKED

# Names of results that the user does not name.
RESULT_FILES: Mapping[str, str] = {
    "mask": f"mask{PACKED}",
    "probabilities": f"probabilities{PACKED}",
    "statistics": "statistics.json",
    "preview": "preview.png",
    "report": "report.json",
}
STATISTICS_TABLE = "statistics.csv"

# Bounds of an array's spacing, in its unit.
SHORTEST, LONGEST = 1e-12, 1e12
OutputName = Literal["mask", "probabilities", "statistics", "preview", "report"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. None means the card's value, or one chosen for the machine."""

    overlap: float | None = None
    patch: tuple[int, int, int] | None = None
    blending: Blending | None = None
    memory_bytes: int | None = None
    nan_as: float | None = None
    threshold: float | None = None
    axis: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Outputs:
    """Names of a run's result files. Only the mask is required; the caller of the run writes the report.

    Raises:
        UsageError: two results have the same name.
    """

    mask: str
    probabilities: str | None = None
    statistics: str | None = None
    preview: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        given = [r for r in astuple(self) if r is not None]
        if len(set(given)) != len(given):
            raise UsageError("outputs", expected="a name of its own for each", got=", ".join(given), do="rename one")

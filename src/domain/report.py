"""The report of a run: the provenance and the statistics of a mask, as files and services publish them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .geometry.grid import Box, Grid, Shape3
from .inference.patches import TilePlan
from .labels.postprocessing import Changed
from .labels.ranking import Uncertainty
from .labels.statistics import LabelStatistics
from .plain import plain
from .run import Axis, Blending
from .tuning import Choice

Unit = Literal["mm", "um", "unknown"]
UNTUNED = "Measured configuration of this machine; null where the model runs untuned."


def described(text: str) -> Mapping[str, str]:
    """Return the metadata of a dataclass field with a description for JSON schemas."""
    return {"description": text}


@dataclass(frozen=True)
class GridReport:
    """A voxel grid; the affine maps voxel indices to world coordinates in RAS+, in ``unit``."""

    shape: Shape3
    affine_ras: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    unit: Unit
    axis_codes: str

    @classmethod
    def of(cls, grid: Grid) -> GridReport:
        """Report a grid."""
        affine = tuple(tuple(row) for row in grid.affine.tolist())
        return cls(grid.shape, affine, grid.spacing, cast(Unit, grid.unit), grid.axis_codes)


@dataclass(frozen=True)
class TilesReport:
    """The tile plan, in voxels of the model's grid."""

    count: int
    tile: Shape3
    padded: Shape3
    axis: Axis
    blending: Blending
    resampled: bool
    repeated: int = field(default=0, metadata=described("Constant tiles whose logits were reused."))
    images: int = field(
        default=1,
        metadata=described("Mirror images of each tile, whose logits are averaged; only if the card mirrors."),
    )

    @classmethod
    def of(cls, plan: TilePlan, *, resampled: bool, repeated: int = 0, images: int = 1) -> TilesReport:
        """Report a tile plan."""
        axis = cast(Axis, "xyz"[plan.axis])
        return cls(plan.tile_count, plan.tile, plan.padded, axis, plan.blending, resampled, repeated, images)

    def mapping(self) -> dict[str, Any]:
        """Return the tile plan as plain data."""
        return {name: value for name, value in plain(self).items() if (name, value) != ("images", 1)}


@dataclass(frozen=True)
class StatisticsReport:
    """Statistics of each label; ``unit`` is the unit of lengths, volumes are in its cube."""

    unit: str
    voxel_volume: float
    labels: tuple[LabelStatistics, ...]
    uncertainty: Uncertainty | None = field(
        default=None, metadata=described("Where to look first; only beside an uncertainty map.")
    )

    @classmethod
    def of(
        cls, statistics: Sequence[LabelStatistics], grid: Grid, uncertainty: Uncertainty | None = None
    ) -> StatisticsReport:
        """Report statistics of a label map on a grid."""
        return cls(grid.unit, grid.voxel_volume, tuple(statistics), uncertainty)

    def mapping(self) -> dict[str, Any]:
        """Return the statistics as plain data."""
        return {name: value for name, value in plain(self).items() if (name, value) != ("uncertainty", None)}


@dataclass(frozen=True)
class FileReport:
    """A file with the name that it has in the request or the answer."""

    name: str
    sha256: str = field(metadata={"pattern": "^[0-9a-f]{64}$"})


@dataclass(frozen=True)
class ModelReport:
    """The model of a run. Answers to requests leave ``card`` out; ``report.json`` has it."""

    name: str
    version: str
    file: str
    sha256: str
    weights_sha256: str
    certified: bool = field(metadata=described("Whether this runtime was proved to infer as the source network."))
    card: Mapping[str, Any] = field(default_factory=dict, metadata=described("See docs/model-card.md."))


@dataclass(frozen=True)
class RuntimeReport:
    """The runtime of a run."""

    name: str
    library: str
    device: str
    precision: str
    quantised_sha256: str | None = field(
        default=None, metadata=described("The quantised network that ran in the model's place.")
    )
    reason: str | None = field(default=None, metadata=described("Why this runtime and precision were chosen."))

    def mapping(self) -> dict[str, str]:
        """Return the runtime as plain data, without what is None."""
        return {name: value for name, value in plain(self).items() if value is not None}


@dataclass(frozen=True)
class Report:
    """The provenance of a mask: enough to understand it later, and to make it again."""

    schema: Literal["voxport/report/1"]
    command: str = field(metadata=described("The command that gives the same mask."))
    inputs: tuple[FileReport, ...]
    outputs: tuple[FileReport, ...]
    model: ModelReport
    runtime: RuntimeReport
    tuned: Choice | None = field(metadata=described(UNTUNED))
    versions: Mapping[str, str]
    grid: GridReport
    model_grid: GridReport
    tiles: TilesReport
    statistics: StatisticsReport
    seconds: Mapping[str, float] = field(
        metadata=described("By stage: queued, read, prepare, score, postprocess, measure, write.")
    )
    network_seconds: float = field(metadata=described("Time inside the network, part of the stage score."))
    warnings: tuple[str, ...]
    display_window: tuple[float, float] | None = field(
        default=None, metadata=described("Values of the first channel shown black and white; only beside a preview.")
    )
    crop: Box | None = field(
        default=None, metadata=described("Stored voxels that were segmented, half-open; only if the card crops.")
    )
    postprocessing: tuple[Changed, ...] = field(
        default=(), metadata=described("Voxels that each step of the card's postprocessing changed; only with steps.")
    )

    def mapping(self) -> dict[str, Any]:
        """Return the report as plain data."""
        parts = {name: getattr(self, name).mapping() for name in ("runtime", "tiles", "statistics")}
        data = {**plain(self), **parts}
        for name in ("display_window", "crop", "postprocessing"):
            if not data[name]:
                del data[name]
        return data


def grid_mapping(grid: Grid) -> dict[str, Any]:
    """Return a grid as plain data."""
    return dict(plain(GridReport.of(grid)))


def statistics_mapping(
    statistics: Sequence[LabelStatistics], grid: Grid, uncertainty: Uncertainty | None = None
) -> dict[str, Any]:
    """Return statistics as plain data."""
    return StatisticsReport.of(statistics, grid, uncertainty).mapping()

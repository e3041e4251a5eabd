"""Shapes of a run's report, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Axis = Literal["x", "y", "z"]


class GridAnswer(BaseModel):
    """A voxel grid; the affine maps voxel indices to world coordinates in RAS+, in ``unit``."""

    shape: list[int]
    affine_ras: list[list[float]]
    spacing: list[float]
    unit: Literal["mm", "um", "unknown"]
    axis_codes: str


class TilesAnswer(BaseModel):
    """How the volume was cut, in voxels of the model's grid."""

    count: int
    tile: list[int]
    padded: list[int]
    axis: Axis
    blending: str
    resampled: bool
    repeated: int = Field(0, description="Tiles of one value that were not scored, as one like it had been before.")


class BoxAnswer(BaseModel):
    """A box of voxels, its end excluded."""

    start: list[int]
    stop: list[int]


class ChannelMeasures(BaseModel):
    """A channel's values under a label; null where the label has no voxel."""

    mean: float | None
    std: float | None
    min: float | None
    max: float | None


class LabelMeasures(BaseModel):
    """One label's measures; volume is in the unit cubed, components are 26-connected."""

    value: int
    name: str
    voxels: int
    volume: float
    channels: list[ChannelMeasures]
    bounding_box: BoxAnswer | None
    centroid_voxel: list[float] | None
    centroid_world: list[float] | None
    components: int
    touches_border: bool


class StatisticsAnswer(BaseModel):
    """Measures of each label."""

    unit: str
    voxel_volume: float
    labels: list[LabelMeasures]


class FileAnswer(BaseModel):
    """A file under its name in the request or the answer, never the caller's."""

    name: str
    sha256: str


class ReportModel(BaseModel):
    """The model that scored; ``card`` is in ``report.json`` alone."""

    name: str
    version: str
    file: str
    sha256: str
    weights_sha256: str
    certified: bool = Field(description="Whether this runtime was proved to score as the source network.")
    card: dict[str, Any] = Field(default_factory=dict, description="See docs/model-card.md.")


class ReportRuntime(BaseModel):
    """What scored."""

    name: str
    library: str
    device: str
    precision: str
    quantised_sha256: str | None = Field(None, description="The quantised network that scored in the model's place.")


class ReportTuned(BaseModel):
    """The way to score that was measured and kept on the machine that scored."""

    runtime: str
    precision: str
    threads: int
    patch: tuple[int, int, int] = Field(description="Edges of tiles in voxels: x, y, z.")
    batch: int = Field(description="Tiles a call.")


class Report(BaseModel):
    """The provenance of a mask: all that is needed to understand it later, and to make it again."""

    schema_name: Literal["voxport/report/1"] = Field(alias="schema")
    command: str = Field(description="The command that gives the same mask.")
    inputs: list[FileAnswer]
    outputs: list[FileAnswer]
    model: ReportModel
    runtime: ReportRuntime
    tuned: ReportTuned | None = Field(description="What was taken of a tuning; null where the model runs untuned.")
    versions: dict[str, str]
    grid: GridAnswer
    model_grid: GridAnswer
    tiles: TilesAnswer
    statistics: StatisticsAnswer
    seconds: dict[str, float] = Field(description="By stage: queued, read, prepare, score, measure, write.")
    network_seconds: float = Field(description="How long the network worked, of the seconds of the stage score.")
    warnings: list[str]
    display_window: tuple[float, float] | None = Field(
        None, description="Values of the first channel shown black and white; only beside a preview."
    )

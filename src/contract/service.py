"""The answers of the service, and the fields of an array."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from ..domain.reading import LONGEST, SHORTEST
from ..domain.report import GridReport, Report, StatisticsReport, Unit
from ..domain.run import Axis
from .card import CertificateFields, CertificateSummary
from .options import ARRAY, option_fields
from .problem import ProblemDetails, not_null

# the library checks the bounds, and refuses in better words than a schema has
Length = Annotated[float, Field(json_schema_extra={"minimum": SHORTEST, "maximum": LONGEST})]
ModelName = Annotated[str, Field(max_length=200, description="NAME or NAME:VERSION")]


class Plan(BaseModel):
    """What segmenting would take."""

    model: str
    tiles: int
    tile: list[int]
    padded: list[int]
    axis: Axis
    blending: str
    resampled: bool
    seconds: float
    peak_bytes: int
    warnings: list[str]
    grid: GridReport
    model_grid: GridReport


class RuntimeAnswer(BaseModel):
    """The runtime; ``library`` is its version, if known."""

    name: str
    device: str
    precision: str
    library: str | None = Field(default=None, json_schema_extra=not_null)


class ModelBase(BaseModel):
    """A served model."""

    name: str
    version: str
    reference: str = Field(description="NAME:VERSION")
    description: str
    default: bool
    status: Literal["ready", "loading", "broken"]
    reason: str | None = Field(description="Why it is broken.")


class ModelAnswer(ModelBase):
    """A served model with its certificate: the runtimes that infer as its source network."""

    certificate: CertificateFields | None


class CapacityAnswer(BaseModel):
    """What this service gives to a run of the model: enough to estimate the run from the volume alone."""

    seconds_per_voxel: float
    fixed: list[int | None] = Field(description="Sizes (x, y, z) that the network insists on.")
    batch: int = Field(description="Patches of one call.")
    patch: list[int] | None = Field(description="The patch that was tuned for this machine.")
    free_bytes: int = Field(description="Memory for blending.")
    resident_bytes: int = Field(description="Memory that the service holds at its peak already.")
    warning: str | None


class ModelDetails(ModelAnswer):
    """A served model with its card."""

    sha256: str
    weights_sha256: str
    runtime: RuntimeAnswer | None
    card: dict[str, Any] = Field(description="See docs/model-card.md.")
    capacity: CapacityAnswer | None = Field(description="Null until the model is ready.")


class BrokenAnswer(BaseModel):
    """A file that is kept among the models but cannot be used, and why."""

    name: str
    reason: str


class Models(BaseModel):
    """What is served."""

    default: str | None
    models: list[ModelAnswer]
    broken: list[BrokenAnswer]


class ModelHealth(ModelBase):
    """A served model; its certificate is without samples, which ``/v1/models`` has."""

    certificate: CertificateSummary | None


class HealthOfJobs(BaseModel):
    """The job queue, and how many jobs wait and run, on how many workers; null where it cannot be reached."""

    queue: Literal["ok", "unavailable"]
    queued: int | None
    running: int | None
    workers: int | None


class Health(BaseModel):
    """How the service is: ok, degraded (some model or the job queue is out), or unavailable (the default model is)."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    model: str | None
    model_version: str | None
    runtime: str | None
    device: str | None
    precision: str | None
    certificate: CertificateSummary | None
    models: list[ModelHealth]
    reasons: list[str]
    in_flight: int
    queued: int
    jobs: HealthOfJobs


class Signpost(BaseModel):
    """Where to go from here: paths of this service."""

    service: Literal["voxport"]
    version: str
    document: str
    health: str
    models: str
    segment: str
    jobs: str


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ArrayFields(BaseModel, extra="forbid"):
    """The fields of an array beside its values; the options of a run follow in `PredictFields`."""

    spacing: tuple[Length, Length, Length] = (1.0, 1.0, 1.0)
    unit: Unit = "unknown"
    model: ModelName | None = None
    probabilities: bool = False


OPTION_FIELDS: Any = {
    name: (kind | None, Field(None, description=text)) for name, (kind, text) in option_fields(ARRAY).items()
}
_VOLUME: Any = (list[list[list[float | bool | list[float | bool]]]], Field(description="(x, y, z), or channels first."))
PredictFields = create_model(
    "PredictFields", __base__=ArrayFields, __doc__="The fields of an array beside its values.", **OPTION_FIELDS
)
ArrayBody = create_model(
    "ArrayBody", __base__=PredictFields, __doc__="An array as nested lists, and its other fields.", volume=_VOLUME
)


class LabelAnswer(BaseModel):
    """A label of the model's label table."""

    value: int
    name: str
    colour: str


class PredictModel(BaseModel):
    """The model that scored."""

    name: str
    version: str
    sha256: str


class Prediction(BaseModel):
    """The labels of an array, in its own shape; probabilities ``(K, X, Y, Z)`` where they were asked for."""

    segmentation: list[list[list[int]]]
    shape: list[int]
    labels: list[LabelAnswer]
    statistics: StatisticsReport
    model: PredictModel
    runtime: RuntimeAnswer
    timings: dict[str, float] = Field(
        description="Seconds by stage: queued, read, prepare, score, postprocess, measure, write."
    )
    tiles: int
    warnings: list[str]
    probabilities: list[list[list[list[float]]]] = Field(default_factory=list)


class ModelResult(BaseModel):
    """What one model gave: a report, or a problem."""

    model: str
    report: Report | None = Field(default=None, json_schema_extra=not_null)
    problem: ProblemDetails | None = Field(default=None, json_schema_extra=not_null)


class Results(BaseModel):
    """What each model gave, in the order in which they were asked for."""

    results: list[ModelResult]

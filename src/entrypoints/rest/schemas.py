"""Shapes of answers, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from .problems import KINDS, MEDIA_TYPE

Triple = tuple[float, float, float]
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class ProblemDetails(BaseModel):
    """What is answered instead (RFC 9457)."""

    type: str = Field(examples=["urn:voxport:problem:input"])
    title: str
    status: int
    detail: str = Field(description="One line: what was expected, what came, what to do.")
    instance: str = Field(description="The id of the request, as in the header Voxport-Request.")
    expected: str | None = None
    got: str | None = None
    do: str | None = None


class GridAnswer(BaseModel):
    """A voxel grid; the affine maps voxel indices to world coordinates in RAS+."""

    shape: list[int]
    affine_ras: list[list[float]]
    spacing: list[float]
    unit: str
    axis_codes: str


class Plan(BaseModel):
    """What segmenting would take."""

    model: str
    tiles: int
    tile: list[int]
    padded: list[int]
    axis: Literal["x", "y", "z"]
    blending: str
    resampled: bool
    seconds: float
    peak_bytes: int
    warnings: list[str]
    grid: GridAnswer
    model_grid: GridAnswer


class RuntimeAnswer(BaseModel):
    """What scores."""

    name: str
    device: str
    precision: str
    library: str | None = None


class ModelAnswer(BaseModel):
    """A served model; ``certificate`` says which runtimes give what its network gave in training."""

    name: str
    version: str
    reference: str
    description: str
    default: bool
    status: Literal["ready", "loading", "broken"]
    reason: str | None = None
    certificate: dict[str, Any] | None = None


class ModelDetails(ModelAnswer):
    """A served model with its card."""

    sha256: str
    weights_sha256: str
    runtime: RuntimeAnswer | None = None
    card: dict[str, Any]


class BrokenAnswer(BaseModel):
    """A file that is kept among the models but cannot be used, and why."""

    name: str
    reason: str


class Models(BaseModel):
    """What is served."""

    default: str | None
    models: list[ModelAnswer]
    broken: list[BrokenAnswer]


class Health(BaseModel):
    """How the service is: ok, degraded (some model cannot be used), or unavailable (the default one cannot)."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    model: str | None
    model_version: str | None
    runtime: str | None
    device: str | None
    precision: str | None
    certificate: dict[str, Any] | None
    models: list[ModelAnswer]
    reasons: list[str]
    in_flight: int
    queued: int


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class PredictFields(BaseModel, extra="forbid"):
    """What may be said of an array beside its values."""

    spacing: Triple = (1.0, 1.0, 1.0)
    unit: Literal["mm", "um", "unknown"] = "unknown"
    model: str | None = Field(default=None, max_length=200)
    overlap: float | None = None
    patch: str | None = Field(default=None, max_length=40)
    blending: str | None = Field(default=None, max_length=20)
    threshold: float | None = None
    nan_as: float | None = None
    probabilities: bool = False

    @field_validator("spacing", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A form field says ``X,Y,Z``."""
        return value.split(",") if isinstance(value, str) else value


class ArrayBody(PredictFields):
    """An array as nested lists, and what may be said of it."""

    volume: list[list[list[float | list[float]]]] = Field(description="(x, y, z), or channels first.")


class LabelAnswer(BaseModel):
    """A label of the model's label table."""

    value: int
    name: str
    colour: str


class Prediction(BaseModel):
    """The labels of an array, in its own shape."""

    segmentation: list[list[list[int]]]
    shape: list[int]
    labels: list[LabelAnswer]
    statistics: dict[str, Any]
    model: dict[str, str]
    runtime: RuntimeAnswer
    timings: dict[str, float]
    tiles: int
    warnings: list[str]
    probabilities: list[list[list[list[float]]]] | None = None


class ModelResult(BaseModel):
    """What one model gave: a report, or a problem."""

    model: str
    report: dict[str, Any] | None = None
    problem: ProblemDetails | None = None


class Results(BaseModel):
    """What each model gave."""

    results: list[ModelResult]


def _problems() -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    titles: dict[int, str] = {}
    for kind in KINDS.values():
        titles[kind.status] = f"{titles[kind.status]}; {kind.title}" if kind.status in titles else kind.title
    return {
        status: {"description": title, "content": {MEDIA_TYPE: {"schema": schema}}} for status, title in titles.items()
    }


PROBLEMS = _problems()
SEGMENTED: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {
        "description": "The mask; or a zip where several models or outputs are asked for; or reports alone.",
        "model": Results,
        "content": {"application/gzip": _BINARY, "application/zip": _BINARY},
        "headers": {
            "Voxport-Report": {"description": "The report, as JSON.", "schema": {"type": "string"}},
        },
    },
}
_ONE_VOXEL_THICK = {"volume": [[[0, 40], [80, 120]], [[10, 50], [90, 130]]], "spacing": [1.0, 1.0, 5.0], "unit": "um"}
ARRAY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ArrayBody"},
                "example": _ONE_VOXEL_THICK,
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["volume"],
                    "properties": {
                        "volume": {"type": "string", "format": "binary", "description": "An .npy file."},
                        "spacing": {"type": "string", "description": "X,Y,Z", "pattern": r"^[0-9.]+,[0-9.]+,[0-9.]+$"},
                        "unit": {"type": "string", "enum": ["mm", "um", "unknown"]},
                        "model": {"type": "string", "maxLength": 200},
                        "overlap": {"type": "number"},
                        "patch": {"type": "string", "maxLength": 40},
                        "blending": {"type": "string", "maxLength": 20},
                        "threshold": {"type": "number"},
                        "nan_as": {"type": "number"},
                        "probabilities": {"type": "boolean"},
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}

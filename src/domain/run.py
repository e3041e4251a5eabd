"""Options and outputs of a run.

A field of `RunOptions` is an option everywhere. Its metadata describe it to the command line, to the forms of the
service, to the client and to OpenAPI, which read them from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Literal, TypedDict

from .errors import UsageError
from .reading import LengthUnit, Reading
from .volume_names import PACKED, SENT_MASKS, USUAL_FORMAT, MaskFormat

# Names of results that the user does not name.
RESULT_FILES: Mapping[str, str] = {
    "mask": f"mask{PACKED}",
    "probabilities": f"probabilities{PACKED}",
    "uncertainty": f"uncertainty{PACKED}",
    "statistics": "statistics.json",
    "preview": "preview.png",
    "report": "report.json",
}
STATISTICS_TABLE = "statistics.csv"


def result_files(mask_format: MaskFormat = USUAL_FORMAT) -> Mapping[str, str]:
    """Return the names of results that the user does not name, the mask in a format."""
    return {**RESULT_FILES, "mask": f"mask{SENT_MASKS[mask_format].ending}"}


Blending = Literal["gaussian", "constant", "halo"]
BLENDINGS: tuple[Blending, ...] = ("gaussian", "constant", "halo")
LARGEST_OVERLAP = 0.75
Axis = Literal["x", "y", "z"]
AXES: tuple[Axis, ...] = ("x", "y", "z")
OutputName = Literal["mask", "probabilities", "uncertainty", "statistics", "preview", "report"]
_FLOAT32_MAX = 3.4028234663852886e38


def _option(
    description: str, *, shown: str = "the card's", metavar: str | None = None, remote: bool = True, **schema: Any
) -> Mapping[str, Any]:
    """Return an option's help text, default in words, placeholder, whether a server takes it, and JSON schema."""
    return {"description": description, "shown": shown, "metavar": metavar, "remote": remote, "schema": schema}


def _stated(description: str, *, shown: str = "what the file states", **more: Any) -> Mapping[str, Any]:
    """Return the metadata of an option that says how a volume is stored."""
    return _option(description, shown=shown, **more)


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. None means the card's value, or one chosen for the machine.

    Raises:
        UsageError: an unknown blending mode, a ``nan_as`` that is not finite, or what no volume can have.
    """

    overlap: float | None = field(
        default=None, metadata=_option("Overlap of tiles, 0 to 0.75.", minimum=0, maximum=LARGEST_OVERLAP)
    )
    patch: tuple[int, int, int] | None = field(default=None, metadata=_option("Tile edges in voxels.", metavar="X,Y,Z"))
    blending: Blending | None = field(
        default=None, metadata=_option("How tiles are joined: gaussian, constant, or halo (least memory).")
    )
    memory_bytes: int | None = field(
        default=None,
        metadata=_option("Memory limit, e.g. 4GB.", shown="half of what is free", metavar="SIZE", remote=False),
    )
    nan_as: float | None = field(
        default=None,
        metadata=_option(
            "Take this for NaN and Inf, which are refused otherwise.",
            shown="",
            metavar="VALUE",
            minimum=-_FLOAT32_MAX,
            maximum=_FLOAT32_MAX,
        ),
    )
    threshold: float | None = field(
        default=None,
        metadata=_option("Probability from which a voxel has a label.", exclusiveMinimum=0, exclusiveMaximum=1),
    )
    axis: Axis | None = field(
        default=None,
        metadata=_option(
            "Axis of the model grid, x, y or z, along which planes are read and written.", shown="the least memory"
        ),
    )
    batch: int | None = field(
        default=None, metadata=_option("Tiles a call of the network.", shown="1", remote=False, minimum=1)
    )
    spacing: tuple[float, float, float] | None = field(
        default=None, metadata=_stated("Voxel sizes along x, y and z.", metavar="SX,SY,SZ")
    )
    unit: LengthUnit | None = field(
        default=None, metadata=_stated("Unit of the voxel sizes: nm, um, mm, cm or m.", metavar="UNIT")
    )
    axes: str | None = field(
        default=None,
        metadata=_stated("Axes of the stored array in their order, of X, Y, Z, C and T, e.g. ZYX.", metavar="LETTERS"),
    )
    channel: str | None = field(
        default=None, metadata=_stated("Channels to take, by name or index from 0.", shown="all", metavar="NAME|INDEX")
    )
    timepoint: int | None = field(
        default=None, metadata=_stated("Point in time to take, from 0.", shown="the only one", minimum=0)
    )
    level: int | None = field(
        default=None, metadata=_stated("Level of a pyramid to read, from 0.", shown="0, full resolution", minimum=0)
    )
    series: str | None = field(
        default=None,
        metadata=_stated(
            "Which image of several: UID of a DICOM series, path of a dataset, name of a scene.",
            shown="the only one",
            metavar="NAME",
        ),
    )

    @property
    def reading(self) -> Reading:
        """What the options state of the volumes to read."""
        return Reading(**{stated.name: getattr(self, stated.name) for stated in fields(Reading)})

    def __post_init__(self) -> None:
        if self.blending is not None and self.blending not in BLENDINGS:
            expected = f"one of {', '.join(BLENDINGS)}"
            raise UsageError("blending", expected=expected, got=str(self.blending), do="choose another")
        if self.axis is not None and self.axis not in AXES:
            raise UsageError("axis", expected="x, y or z", got=str(self.axis), do="choose another")
        if self.nan_as is not None and not abs(self.nan_as) <= _FLOAT32_MAX:
            expected = "a finite number that float32 can hold"
            raise UsageError("nan_as", expected=expected, got=f"{self.nan_as:g}", do="0 is usual")
        object.__setattr__(self, "axes", self.reading.axes)


def option_text(value: object) -> str:
    """Return an option's value as the command line and forms take it: ``0.5``, ``64,64,16``, ``halo``."""
    if isinstance(value, tuple):
        return ",".join(map(option_text, value))
    return repr(value) if isinstance(value, float) else str(value)


class ArrayOptions(TypedDict, total=False):
    """The options that a server takes for an array, as keyword arguments of the client."""

    overlap: float | None
    patch: Sequence[int] | None
    blending: str | None
    nan_as: float | None
    threshold: float | None
    axis: str | None


class RemoteOptions(ArrayOptions, total=False):
    """The options that a server takes for stored volumes, as keyword arguments of the client."""

    spacing: Sequence[float] | None
    unit: str | None
    axes: str | None
    channel: str | None
    timepoint: int | None
    level: int | None
    series: str | None


@dataclass(frozen=True)
class Outputs:
    """Names of a run's result files. Only the mask is required; the caller of the run writes the report and the page.

    Raises:
        UsageError: two results have the same name.
    """

    mask: str
    probabilities: str | None = None
    statistics: str | None = None
    preview: str | None = None
    report: str | None = None
    label_table: str | None = None
    uncertainty: str | None = None
    html: str | None = None

    def __post_init__(self) -> None:
        given = [r for r in astuple(self) if r is not None]
        if len(set(given)) != len(given):
            raise UsageError("outputs", expected="a name of its own for each", got=", ".join(given), do="rename one")

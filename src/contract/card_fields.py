"""The parts of a model card: input, inference and output; those of schema 2 extend those of schema 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..domain.cards.model_card import Axes, Channel, Crop, Input, ResamplingRule
from ..domain.errors import UsageError
from ..domain.geometry.grid import check_codes
from ..domain.inference.patches import Padding, Tiling
from ..domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore, is_within_crop
from ..domain.labels.label_map import PALETTE, Label, LabelTable, Output
from ..domain.labels.postprocessing import FillHoles, KeepLargest, Postprocessing, RemoveSmall
from ..domain.run import LARGEST_OVERLAP
from .reading import Strict, expected, sized, wrong

_LABELS = "at least one label and each value once"

MODEL_NAME, MODEL_VERSION = "[a-z0-9][a-z0-9-]*", "[0-9A-Za-z][0-9A-Za-z.+-]*"
AnyText = Annotated[str, Field(strict=True)]
Text = Annotated[str, Field(strict=True, pattern=r"\S"), expected("text")]
Name = Annotated[str, Field(strict=True, pattern=f"^{MODEL_NAME}$"), expected("lower-case letters, digits and hyphens")]
Version = Annotated[
    str, Field(strict=True, pattern=f"^{MODEL_VERSION}$"), expected("a version such as 1.0.0, in quotes")
]
Codes = Annotated[
    str, Field(strict=True, pattern="^[RLAPIS]{3}$"), expected("axis codes such as RAS, or null for as stored")
]
Colour = Annotated[str, Field(strict=True, pattern="^#[0-9a-fA-F]{6}$"), expected("a colour such as #e4572e")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), expected("a finite number")]
Length = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0), expected("a positive length")]
Overlap = Annotated[
    float,
    Field(strict=True, allow_inf_nan=False, ge=0, le=LARGEST_OVERLAP),
    expected(f"a number from 0 to {LARGEST_OVERLAP}"),
]
Temperature = Annotated[
    float, Field(strict=True, allow_inf_nan=False, gt=0, le=100), expected("a number above 0, at most 100")
]
Threshold = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, lt=1), expected("a number from 0 to 1")]
Index = Annotated[int, Field(strict=True, ge=0), expected("a whole number of at least 0")]
Count = Annotated[int, Field(strict=True, ge=1), expected("a whole number of at least 1")]
_AtLeastOne = Annotated[int, Field(strict=True, ge=1)]
Divisor = Annotated[
    _AtLeastOne | tuple[_AtLeastOne, _AtLeastOne, _AtLeastOne],
    expected("a whole number of at least 1, or three (x, y, z)"),
]
Lengths = Annotated[
    tuple[Length | None, Length | None, Length | None],
    sized("three lengths (x, y, z), null for an axis as stored", 3),
]
Pair = Annotated[tuple[Number, Number], sized("two numbers", 2)]
LabelValues = Annotated[list[Count], Field(min_length=1), sized("at least one label value")]


class ZScoreFields(Strict):
    """The options of a z-score."""

    nonzero: Annotated[bool, Field(strict=True)] = False

    def step(self) -> ZScore:
        """Return the domain's value."""
        return ZScore("nonzero" if self.nonzero else "all")


class ZScoreFields2(ZScoreFields):
    """The options of a z-score: what it is computed from, or its mean and standard deviation."""

    within: Literal["all", "nonzero", "crop"] | None = None
    mean: Number | None = None
    std: Length | None = None

    @model_validator(mode="after")
    def _check(self) -> ZScoreFields2:
        if (self.mean is None) != (self.std is None):
            raise wrong("std", "goes with mean: give both or neither")
        if self.nonzero and self.within not in (None, "nonzero"):
            raise wrong("within", f"expected nonzero, as nonzero is true, got {self.within!r}")
        return self

    def step(self) -> ZScore:
        """Return the domain's value."""
        return ZScore(self.within or super().step().within, self.mean, self.std)


class StepFields(Strict):
    """One intensity step: exactly one of the fields."""

    clip_percentiles: Pair | None = None
    rescale: Pair | None = None
    window: Pair | None = None
    shift_scale: Pair | None = None
    zscore: ZScoreFields | None = None

    @model_validator(mode="after")
    def _check(self) -> StepFields:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        ((name, value),) = given.items()
        if name in ("clip_percentiles", "rescale", "window", "clip") and value[0] >= value[1]:
            raise wrong(name, f"expected low < high, got {list(value)}")
        if name == "clip_percentiles" and not 0 <= value[0] < value[1] <= 100:
            raise wrong(name, f"expected percentiles from 0 to 100, got {list(value)}")
        return self

    def step(self) -> Step:
        """Return the step that the card names."""
        if self.zscore is not None:
            return self.zscore.step()
        kinds: dict[str, Callable[[float, float], Step]]
        kinds = {"clip_percentiles": ClipPercentiles, "rescale": Rescale, "window": Window, "shift_scale": ShiftScale}
        kinds["clip"] = Window
        given = ((kind, getattr(self, name, None)) for name, kind in kinds.items())
        return next(kind(*pair) for kind, pair in given if pair is not None)


class StepFields2(StepFields):
    """One intensity step: exactly one of the fields; ``clip`` is another name of ``window``."""

    clip: Pair | None = None
    zscore: ZScoreFields2 | None = None


class ChannelFields(Strict):
    """A channel of the network's input."""

    name: Text
    source: Index | None = None

    def value(self, position: int) -> Channel:
        """Return the domain's value, for the channel at a position of the card."""
        return Channel(self.name, position if self.source is None else self.source)


class ChannelFields2(ChannelFields):
    """A channel of the network's input, with intensity steps of its own if it has any."""

    intensity: list[StepFields2] | None = None

    def value(self, position: int) -> Channel:
        """Return the domain's value, for the channel at a position of the card."""
        steps = None if self.intensity is None else tuple(step.step() for step in self.intensity)
        return replace(super().value(position), intensity=steps)


class InputFields(Strict):
    """The volumes that the network expects."""

    axes: Axes = Field("XYZ", description="The axis order of the arrays that the network takes.")
    channels: Annotated[list[ChannelFields], Field(min_length=1), sized("at least one channel")]
    orientation: Codes | None = Field("RAS", description="Axis codes that volumes are brought to; null as stored.")
    spacing: Annotated[tuple[Length, Length, Length], sized("three lengths (x, y, z)", 3)] | None = None
    spacing_unit: Literal["mm", "um"] | None = None
    intensity: list[StepFields] = Field([])

    @model_validator(mode="after")
    def _check(self) -> InputFields:
        if self.orientation is not None:
            try:
                check_codes(self.orientation)
            except ValueError:
                words = "expected axis codes such as RAS, or null for as stored"
                raise wrong("orientation", f"{words}, got {self.orientation!r}") from None
        if (self.spacing is None) != (self.spacing_unit is None):
            raise wrong("spacing_unit", "goes with spacing: give both or neither")
        return self

    def value(self) -> Input:
        """Return the domain's value."""
        channels = tuple(channel.value(position) for position, channel in enumerate(self.channels))
        steps = tuple(step.step() for step in self.intensity)
        return Input(channels, self.axes, self.orientation, self.spacing, self.spacing_unit, steps)


class CropFields(Strict):
    """The box that is segmented."""

    to: Literal["nonzero", "above"]
    threshold: Number = 0.0
    margin: Index = Field(0, description="Voxels around the box.")


class ResamplingFields(Strict):
    """How volumes are brought to the spacing."""

    order: Annotated[Literal[1, 3], Field(description="Order of the spline.")] = 1
    separate_axis: Annotated[
        Literal["auto"] | None,
        Field(description="auto: an axis more than three times as coarse as the others takes the nearest voxel."),
    ] = None
    when: Literal["after_intensity", "before_intensity"] = "after_intensity"
    align: Annotated[
        Literal["centre", "extent", "first"],
        Field(description="What the two grids have in common: the centre, the extent, or the first voxel."),
    ] = "centre"


class InputFields2(InputFields):
    """The volumes that the network expects."""

    channels: Annotated[list[ChannelFields2], Field(min_length=1), sized("at least one channel")]  # type: ignore[assignment]
    intensity: list[StepFields2] = Field([])  # type: ignore[assignment]
    spacing: Lengths | None = None  # type: ignore[assignment]
    crop: CropFields | None = None
    resampling: ResamplingFields = ResamplingFields()

    @model_validator(mode="after")
    def _check_crop(self) -> InputFields2:
        given = self.value()
        if any(is_within_crop(step) for channel in given.channels for step in given.steps(channel)):
            if self.crop is None:
                raise wrong("crop", "expected one, as a zscore is within: crop")
            if self.resampling.when == "before_intensity":
                raise wrong("resampling", "expected when: after_intensity, as a zscore is within: crop")
        return self

    def value(self) -> Input:
        """Return the domain's value."""
        crop = None if self.crop is None else Crop(**self.crop.model_dump())
        return replace(super().value(), crop=crop, resampling=ResamplingRule(**self.resampling.model_dump()))


class PaddingFields(Strict):
    """The values beyond a volume that is smaller than the patch."""

    mode: Literal["constant", "edge", "reflect"] = "constant"
    value: Number = 0.0
    to: Annotated[
        Literal["patch", "divisor"] | None,
        Field(description="Pad to the patch, or to a multiple of the divisor (null means the latter)."),
    ] = None


class TilingFields(Strict):
    """How volumes are cut into tiles."""

    patch: Annotated[
        tuple[Count | None, Count | None, Count | None],
        sized("three edges (x, y, z) in voxels, null for a whole axis", 3),
    ] = Field(description="Edges x, y, z in voxels; null for a whole axis.")
    divisor: Count = 1
    overlap: Overlap = 0.5
    blending: Literal["gaussian", "constant"] = "gaussian"
    padding: PaddingFields = PaddingFields()

    @model_validator(mode="after")
    def _check(self) -> TilingFields:
        divisors = Tiling(self.patch, self.divisor).divisors
        if any(edge is not None and edge % divisor for edge, divisor in zip(self.patch, divisors, strict=True)):
            raise wrong("patch", f"expected multiples of the divisor {self.divisor}, got {self.patch}")
        return self

    def value(self) -> Tiling:
        """Return the domain's value."""
        padding = Padding(self.padding.mode, self.padding.value, self.padding.to)
        return Tiling(self.patch, self.divisor, self.overlap, self.blending, padding)


class InferenceFields(TilingFields):
    """How volumes are cut into tiles, and mirrored."""

    divisor: Divisor = 1  # type: ignore[assignment]
    mirror: list[Literal["x", "y", "z"]] = Field(
        [], description="Axes along whose combinations patches are mirrored; logits are averaged."
    )
    windows: Literal["even", "monai", "nnunet"] = Field(
        "even", description="Tiles are spread evenly, or have the starts and Gaussian weights of MONAI or nnU-Net."
    )
    blending: Literal["gaussian", "constant", "halo"] = "gaussian"  # type: ignore[assignment]
    context: Annotated[
        tuple[Index, Index, Index] | None,
        sized("three distances (x, y, z) in voxels", 3),
        Field(
            description="A label depends on no voxel further away than this along x, y and z. Needs blending: halo; "
            "labels then do not depend on patch and overlap."
        ),
    ] = None

    @model_validator(mode="after")
    def _check_context(self) -> InferenceFields:
        if (self.context is not None) != (self.blending == "halo"):
            raise wrong("blending", f"expected halo with a context, and only with one, got {self.blending}")
        if self.context is not None and self.windows != "even":
            raise wrong("windows", f"expected even with a context, got {self.windows}")
        if self.context is not None and self.padding.to == "patch":
            raise wrong("padding", "expected to: divisor with a context, got patch")
        return self

    def value(self) -> Tiling:
        """Return the domain's value."""
        mirror = tuple(sorted({"xyz".index(axis) for axis in self.mirror}))
        return replace(super().value(), mirror=mirror, windows=self.windows, context=self.context)


class LabelFields(Strict):
    """A label of the network's output."""

    value: Count
    name: Text
    colour: Colour | None = None

    def label(self, colour: str) -> Label:
        """Return the domain's value; ``colour`` is that of a label that names none."""
        return Label(self.value, self.name, self.colour or colour)


class LabelFields2(LabelFields):
    """A label of the network's output."""

    channel: Index | None = Field(None, description="The output channel; null: as the activation has it.")
    also: dict[str, Any] = Field({}, description="Further facts, e.g. a code.")

    def label(self, colour: str) -> Label:
        """Return the domain's value; ``colour`` is that of a label that names none."""
        return replace(super().label(colour), channel=self.channel, also=self.also)


class OutputFields(Strict):
    """The network's output."""

    activation: Literal["softmax", "sigmoid", "none"]
    threshold: Threshold = 0.5
    tensor: Text | Index | None = Field(
        None, description="Name or index of the output with the logits, of a network that has several."
    )
    bounded: Annotated[bool, Field(strict=True)] = Field(
        False, description="The logits are within [0, 1], or whole numbers, without an activation in the network."
    )
    labels: Annotated[list[LabelFields], Field(min_length=1), sized(_LABELS)]

    @model_validator(mode="after")
    def _check(self) -> OutputFields:
        values = [label.value for label in self.labels]
        if len(set(values)) != len(values):
            raise wrong("labels", f"expected {_LABELS}, got {values}")
        try:
            self.value()
        except UsageError as error:
            raise wrong("threshold", f"expected {error.expected}, got {error.got}") from None
        return self

    def value(self) -> Output:
        """Return the domain's value."""
        table = (label.label(PALETTE[i % len(PALETTE)]) for i, label in enumerate(self.labels))
        tensor = None if self.tensor is None else str(self.tensor)
        output = Output(self.activation, LabelTable(tuple(table)), tensor=tensor, bounded=self.bounded)
        return output if self.threshold == output.threshold else output.with_threshold(self.threshold)


class RemoveSmallFields(Strict):
    """Components of labels that are too small to be kept."""

    labels: LabelValues
    volume: Length
    unit: Literal["mm", "um"]


class PostprocessingFields(Strict):
    """One step on the label map: exactly one of the fields."""

    keep_largest: LabelValues | None = None
    remove_small: RemoveSmallFields | None = None
    fill_holes: LabelValues | None = None

    @model_validator(mode="after")
    def _check(self) -> PostprocessingFields:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        return self

    def step(self) -> Postprocessing:
        """Return the domain's value."""
        if self.keep_largest is not None:
            return KeepLargest(tuple(self.keep_largest))
        if self.fill_holes is not None:
            return FillHoles(tuple(self.fill_holes))
        small = self.remove_small
        assert small is not None  # as checked
        return RemoveSmall(tuple(small.labels), small.volume, small.unit)

    @property
    def labels(self) -> list[int]:
        """The labels that the step is for."""
        return self.keep_largest or self.fill_holes or (self.remove_small.labels if self.remove_small else [])


class OutputFields2(OutputFields):
    """The network's output, the way back to the stored grid, and what is done to the label map."""

    activation: Literal["softmax", "sigmoid", "none", "labels"]  # type: ignore[assignment]
    labels: Annotated[list[LabelFields2], Field(min_length=1), sized(_LABELS)]  # type: ignore[assignment]
    resample: Literal["logits", "probabilities", "labels"] = Field(
        "logits", description="What is brought back to the stored grid."
    )
    order: Literal[0, 1, 3] = Field(1, description="Order of the spline on the way back.")
    postprocessing: list[PostprocessingFields] = Field([])
    temperature: Temperature = Field(
        1.0, description="Logits are divided by it for the probabilities that are given out; labels are not affected."
    )

    @model_validator(mode="after")
    def _check_steps(self) -> OutputFields2:
        if self.temperature != 1 and self.activation not in ("softmax", "sigmoid"):
            raise wrong(
                "temperature", f"expected 1 for {self.activation}, which gives no logits, got {self.temperature:g}"
            )
        known = {label.value for label in self.labels}
        for position, step in enumerate(self.postprocessing):
            if unknown := sorted(set(step.labels) - known):
                raise wrong("postprocessing", f"expected values of output.labels, got {unknown} in step {position + 1}")
        return self

    def value(self) -> Output:
        """Return the domain's value."""
        steps = tuple(step.step() for step in self.postprocessing)
        more: dict[str, Any] = {"resample": self.resample, "order": self.order, "temperature": self.temperature}
        return replace(super().value(), postprocessing=steps, **more)

"""Read model cards of schema ``voxport/model-card/1``, as YAML and ONNX files hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..domain.cards.model_card import Axes, Channel, Input, ModelCard
from ..domain.errors import ModelError, UsageError
from ..domain.geometry.grid import check_codes
from ..domain.inference.patches import Padding, Tiling
from ..domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ..domain.labels.label_map import Activation, Label, LabelTable, Output
from ..domain.parity import Certificate, Parity, ProbeInput, RuntimeParity
from ..domain.run import LARGEST_OVERLAP
from .reading import Strict, expected, problems_of, short, sized, wrong

# Colours of labels that name none, distinct for readers with colour blindness too (Okabe and Ito, 2008).
_PALETTE = ("#e4572e", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#999999")
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
Threshold = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, lt=1), expected("a number from 0 to 1")]
Index = Annotated[int, Field(strict=True, ge=0), expected("a whole number of at least 0")]
Count = Annotated[int, Field(strict=True, ge=1), expected("a whole number of at least 1")]
Pair = Annotated[tuple[Number, Number], sized("two numbers", 2)]


class ChannelFields(Strict):
    """A channel of the network's input."""

    name: Text
    source: Index | None = None


class ZScoreFields(Strict):
    """The options of a z-score."""

    nonzero: Annotated[bool, Field(strict=True)] = False


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
        if name in ("clip_percentiles", "rescale", "window") and value[0] >= value[1]:
            raise wrong(name, f"expected low < high, got {list(value)}")
        if name == "clip_percentiles" and not 0 <= value[0] < value[1] <= 100:
            raise wrong(name, f"expected percentiles from 0 to 100, got {list(value)}")
        return self

    def step(self) -> Step:
        """Return the step that the card names."""
        if self.zscore is not None:
            return ZScore(self.zscore.nonzero)
        kinds: dict[str, Callable[[float, float], Step]]
        kinds = {"clip_percentiles": ClipPercentiles, "rescale": Rescale, "window": Window, "shift_scale": ShiftScale}
        return next(kind(*getattr(self, name)) for name, kind in kinds.items() if getattr(self, name) is not None)


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
        channels = (Channel(c.name, i if c.source is None else c.source) for i, c in enumerate(self.channels))
        steps = tuple(step.step() for step in self.intensity)
        return Input(tuple(channels), self.axes, self.orientation, self.spacing, self.spacing_unit, steps)


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
        if any(edge is not None and edge % self.divisor for edge in self.patch):
            raise wrong("patch", f"expected multiples of the divisor {self.divisor}, got {self.patch}")
        return self

    def value(self) -> Tiling:
        """Return the domain's value."""
        padding = Padding(self.padding.mode, self.padding.value, self.padding.to)
        return Tiling(self.patch, self.divisor, self.overlap, self.blending, padding)


class LabelFields(Strict):
    """A label of the network's output."""

    value: Count
    name: Text
    colour: Colour | None = None


class OutputFields(Strict):
    """The network's output."""

    activation: Activation
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
        table = (Label(x.value, x.name, x.colour or _PALETTE[i % len(_PALETTE)]) for i, x in enumerate(self.labels))
        tensor = None if self.tensor is None else str(self.tensor)
        output = Output(self.activation, LabelTable(tuple(table)), tensor=tensor, bounded=self.bounded)
        return output if self.threshold == output.threshold else output.with_threshold(self.threshold)


class ProbeFields(Strict):
    """A seeded input, and the source network's probabilities for it."""

    shape: Annotated[tuple[Count, Count, Count, Count, Count], sized("five edges (N, C, x, y, z)", 5)]
    seed: Index
    probabilities: list[Number]


class RuntimeFields(Strict):
    """How far a runtime's labels are those of the source network."""

    runtime: Text
    precision: Text
    version: Text
    label_agreement: Number
    dice: list[Number]
    max_probability_difference: Number
    logit_spread: Number = 0.0


class CertificateSummary(Strict):
    """The comparison of a model file with its source network, without its samples."""

    weights_sha256: Text
    date: Text
    runtimes: list[RuntimeFields]


class CertificateFields(Strict):
    """The comparison of a model file with its source network, with the samples that it can be repeated with."""

    weights_sha256: Text
    date: Text
    probes: list[ProbeFields]
    runtimes: list[RuntimeFields]

    def value(self) -> Certificate:
        """Return the domain's value."""
        return Certificate(
            self.weights_sha256,
            self.date,
            tuple(ProbeInput(p.shape, p.seed, tuple(p.probabilities)) for p in self.probes),
            tuple(
                RuntimeParity(
                    r.runtime,
                    r.precision,
                    r.version,
                    Parity(r.label_agreement, tuple(r.dice), r.max_probability_difference, r.logit_spread),
                )
                for r in self.runtimes
            ),
        )


class CardFields(Strict):
    """A model card."""

    schema_name: Literal["voxport/model-card/1"] = Field(alias="schema")
    name: Name
    version: Version
    description: AnyText = ""
    licence: AnyText = ""
    intended_use: AnyText = ""
    input: InputFields
    tiling: TilingFields
    output: OutputFields
    provenance: dict[Any, Any] = Field({})
    parity: CertificateFields | None = None


def read_card(data: object, subject: str = "model card") -> ModelCard:
    """Return the card of parsed YAML or JSON.

    Raises:
        ModelError: names every field that is unknown, missing or wrong, all in one line.
    """
    if not isinstance(data, Mapping):
        got = f"{short(data)}, which is no mapping of fields"
        raise ModelError(subject, expected="a valid model card", got=got, do="correct the card")
    try:
        card = CardFields.model_validate(data)
    except ValidationError as error:
        listed = "; ".join(f"{path} {words}" for path, words in problems_of(error, CardFields))
        raise ModelError(subject, expected="a valid model card", got=listed, do="correct the card") from None
    return ModelCard(
        card.name,
        card.version,
        card.description,
        card.licence,
        card.intended_use,
        card.input.value(),
        card.tiling.value(),
        card.output.value(),
        card.provenance,
        None if card.parity is None else card.parity.value(),
    )


def card_schema() -> dict[str, Any]:
    """Return the JSON schema of model cards, as ``docs/model-card.schema.json`` publishes it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:voxport:model-card:1",
        **CardFields.model_json_schema(),
        "title": "voxport model card",
        "description": "What a 3-D segmentation network expects and emits. voxport checks more than a schema can: "
        "patches are multiples of the divisor, low comes before high, spacing and its unit go together, label values "
        "are told apart.",
    }

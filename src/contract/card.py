"""Read model cards of schemas 1 and 2 (``voxport/model-card/N``), as YAML and ONNX files hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..domain.cards.model_card import ModelCard
from ..domain.cards.writing import SCHEMA, SCHEMA_2, write_card
from ..domain.errors import ModelError
from ..domain.parity import Certificate, Parity, PipelineParity, ProbeInput, RuntimeParity
from .card_fields import (
    MODEL_NAME,
    MODEL_VERSION,
    AnyText,
    Count,
    Index,
    InferenceFields,
    InputFields,
    InputFields2,
    Name,
    Number,
    OutputFields,
    OutputFields2,
    Text,
    TilingFields,
    Version,
)
from .reading import Strict, expected, problems_of, short, sized

__all__ = [
    "MODEL_NAME",
    "MODEL_VERSION",
    "CertificateFields",
    "CertificateSummary",
    "card_schema",
    "read_card",
    "revise_card",
]


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


class PipelineFields(Strict):
    """How far the labels of a volume are those of the source framework's own inference."""

    framework: Text
    version: Text
    volume: Text
    volume_sha256: Text
    label_agreement: Number
    dice: list[Number]


class CertificateSummary(Strict):
    """The comparison of a model file with its source, without its samples."""

    weights_sha256: Text
    date: Text
    runtimes: list[RuntimeFields]
    pipeline: list[PipelineFields] = Field([])


class CertificateFields(Strict):
    """The comparison of a model file with its source, with the samples that it can be repeated with."""

    weights_sha256: Text
    date: Text
    probes: list[ProbeFields]
    runtimes: list[RuntimeFields]
    pipeline: list[PipelineFields] = Field([])

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
            tuple(
                PipelineParity(p.label_agreement, tuple(p.dice), p.framework, p.version, p.volume, p.volume_sha256)
                for p in self.pipeline
            ),
        )


class _Base(Strict):
    """What the cards of both schemas have."""

    name: Name
    version: Version
    description: AnyText = ""
    licence: AnyText = ""
    intended_use: AnyText = ""
    provenance: dict[Any, Any] = Field({})
    parity: CertificateFields | None = None

    def card(self, given: InputFields, tiling: TilingFields, output: OutputFields) -> ModelCard:
        """Return the domain's value, of these parts."""
        return ModelCard(
            self.name,
            self.version,
            self.description,
            self.licence,
            self.intended_use,
            given.value(),
            tiling.value(),
            output.value(),
            self.provenance,
            None if self.parity is None else self.parity.value(),
        )


class CardFields(_Base):
    """A model card of schema 1."""

    schema_name: Annotated[Literal["voxport/model-card/1"], expected(f"{SCHEMA} or {SCHEMA_2}")] = Field(alias="schema")
    input: InputFields
    tiling: TilingFields
    output: OutputFields

    def value(self) -> ModelCard:
        """Return the domain's value."""
        return self.card(self.input, self.tiling, self.output)


class CardFields2(_Base):
    """A model card of schema 2."""

    schema_name: Literal["voxport/model-card/2"] = Field(alias="schema")
    authors: list[Text] = Field([])
    citation: AnyText = ""
    measure: Literal["tubular"] | None = None
    input: InputFields2
    inference: InferenceFields
    output: OutputFields2

    def value(self) -> ModelCard:
        """Return the domain's value."""
        card = self.card(self.input, self.inference, self.output)
        return replace(card, authors=tuple(self.authors), citation=self.citation, measure=self.measure)


def read_card(data: object, subject: str = "model card") -> ModelCard:
    """Return the card of parsed YAML or JSON.

    Raises:
        ModelError: names every field that is unknown, missing or wrong, all in one line.
    """
    if not isinstance(data, Mapping):
        got = f"{short(data)}, which is no mapping of fields"
        raise ModelError(subject, expected="a valid model card", got=got, do="correct the card")
    fields: type[CardFields | CardFields2] = CardFields2 if data.get("schema") == SCHEMA_2 else CardFields
    try:
        return fields.model_validate(data).value()
    except ValidationError as error:
        listed = "; ".join(f"{path} {words}" for path, words in problems_of(error, fields))
        raise ModelError(subject, expected="a valid model card", got=listed, do="correct the card") from None


def revise_card(card: ModelCard, changes: Mapping[str, Any]) -> ModelCard:
    """Return a card with other values of some fields, by their names in schema 2, e.g. ``inference.overlap``.

    Raises:
        ModelError: names every field that is then unknown or wrong.
    """
    data = write_card(card)
    if data["schema"] == SCHEMA:  # any change may be to a field that schema 2 alone has
        data |= {"schema": SCHEMA_2, "inference": data.pop("tiling")}
    for path, value in changes.items():
        *parts, name = path.split(".")
        place: Any = data
        for part in parts:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            got = f"{path}, which is below a value"
            raise ModelError("model card", expected="a field of a card", got=got, do="name one, e.g. licence")
        place[name] = value
    return read_card(data)


def card_schema() -> dict[str, Any]:
    """Return the JSON schema of model cards, as ``docs/model-card.schema.json`` publishes it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:voxport:model-card",
        **TypeAdapter(CardFields | CardFields2).json_schema(),
        "title": "voxport model card",
        "description": "What a 3-D segmentation network expects and emits. voxport checks more than a schema can: "
        "patches are multiples of the divisor, low comes before high, spacing and its unit go together, label values "
        "differ.",
    }

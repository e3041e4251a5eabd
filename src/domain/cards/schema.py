"""Model cards as plain data: schema ``voxport/model-card/1``, as it stands in YAML and inside ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ..errors import ModelError, UsageError
from ..geometry.grid import check_codes
from ..inference.patches import LARGEST_OVERLAP, Padding, Tiling
from ..intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ..labels.label_map import ACTIVATIONS, Label, LabelTable, Output
from ..parity import Certificate, Parity, ProbeInput, RuntimeParity
from .fields import (
    Field,
    FieldErrors,
    Parse,
    any_text,
    boolean,
    items,
    mapping,
    matching,
    nullable,
    number,
    one_of,
    optional,
    record,
    several,
    short,
    text,
    whole,
)
from .model_card import Channel, Input, ModelCard

SCHEMA = "voxport/model-card/1"
# For labels that name no colour; told apart by readers with colour blindness too (Okabe and Ito, 2008).
_PALETTE = ("#e4572e", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#999999")


def read_card(data: object, subject: str = "model card") -> ModelCard:
    """A card from parsed YAML or JSON.

    Raises:
        ModelError: names every field that is unknown, missing or wrong, all in one line.
    """
    if not isinstance(data, Mapping):
        got = f"{short(data)}, which is no mapping of fields"
        raise ModelError(subject, expected="a valid model card", got=got, do="correct the card")
    try:
        return _card()(data)
    except FieldErrors as error:
        listed = "; ".join(f"{path} {what}" for path, what in error.problems)
        raise ModelError(subject, expected="a valid model card", got=listed, do="correct the card") from None


def write_card(card: ModelCard) -> dict[str, Any]:
    """The card as plain data; ``read_card`` reads it back."""
    given, tiling, output = card.input, card.tiling, card.output
    return {
        "schema": SCHEMA,
        "name": card.name,
        "version": card.version,
        "description": card.description,
        "licence": card.licence,
        "intended_use": card.intended_use,
        "input": {
            "axes": given.axes,
            "channels": [{"name": c.name, "source": c.source} for c in given.channels],
            "orientation": given.orientation,
            "spacing": None if given.spacing is None else list(given.spacing),
            "spacing_unit": given.spacing_unit,
            "intensity": [step.to_mapping() for step in given.intensity],
        },
        "tiling": {
            "patch": list(tiling.patch),
            "divisor": tiling.divisor,
            "overlap": tiling.overlap,
            "blending": tiling.blending,
            "padding": {"mode": tiling.padding.mode, "value": tiling.padding.value},
        },
        "output": {
            "activation": output.activation,
            "threshold": output.threshold,
            "labels": [asdict(label) for label in output.table.labels],
        },
        "provenance": dict(card.provenance),
        "parity": None if card.parity is None else write_certificate(card.parity),
    }


def write_certificate(certificate: Certificate) -> dict[str, Any]:
    """A parity certificate as plain data."""
    return {
        "weights_sha256": certificate.weights_sha256,
        "date": certificate.date,
        "probes": [
            {"shape": list(p.shape), "seed": p.seed, "probabilities": list(p.probabilities)} for p in certificate.probes
        ],
        "runtimes": [
            {
                "runtime": r.runtime,
                "precision": r.precision,
                "version": r.version,
                "label_agreement": r.parity.label_agreement,
                "dice": list(r.parity.dice),
                "max_probability_difference": r.parity.max_probability_difference,
            }
            for r in certificate.runtimes
        ],
    }


def _card() -> Parse[ModelCard]:
    def build(schema: str, **values: Any) -> ModelCard:  # noqa: ARG001 - checked by its parser
        return ModelCard(**values)

    return record(
        build,
        {
            "schema": Field(one_of(SCHEMA)),
            "name": Field(matching(r"[a-z0-9][a-z0-9-]*", "lower-case letters, digits and hyphens")),
            "version": Field(matching(r"[0-9A-Za-z][0-9A-Za-z.+-]*", "a version such as 1.0.0, in quotes")),
            "description": optional(any_text, ""),
            "licence": optional(any_text, ""),
            "intended_use": optional(any_text, ""),
            "input": Field(_input()),
            "tiling": Field(_tiling()),
            "output": Field(_output()),
            "provenance": optional(mapping, {}),
            "parity": optional(_certificate()),
        },
    )


def _input() -> Parse[Input]:
    def build(**values: Any) -> Input:
        channels = tuple(Channel(n, i if s is None else s) for i, (n, s) in enumerate(values.pop("channels")))
        if not channels:
            raise FieldErrors(("channels", "expected at least one channel"))
        if (values["spacing"] is None) != (values["spacing_unit"] is None):
            raise FieldErrors(("spacing_unit", "goes with spacing: give both or neither"))
        return Input(channels=channels, **values)

    channel = record(lambda name, source: (name, source), {"name": Field(text), "source": optional(whole(0))})
    return record(
        build,
        {
            "axes": optional(one_of("XYZ", "ZYX"), "XYZ"),
            "channels": Field(items(channel)),
            "orientation": nullable(_codes, "RAS"),
            "spacing": optional(several(_length, 3, "three lengths (x, y, z)")),
            "spacing_unit": optional(one_of("mm", "um")),
            "intensity": optional(items(_step()), ()),
        },
    )


def _step() -> Parse[Step]:
    pair = several(number, 2, "two numbers")
    zscore = record(ZScore, {"nonzero": optional(boolean, False)})
    fields = {name: optional(pair) for name in ("clip_percentiles", "rescale", "window", "shift_scale")}
    fields["zscore"] = optional(zscore)

    def build(**given: Any) -> Step:
        steps = {name: value for name, value in given.items() if value is not None}
        if len(steps) != 1:
            raise ValueError(f"expected exactly one of {', '.join(fields)}")
        ((name, value),) = steps.items()
        if name == "zscore":
            return ZScore(value.nonzero)
        if name == "shift_scale":
            return ShiftScale(*value)
        if value[0] >= value[1]:
            raise FieldErrors((name, f"expected low < high, got {list(value)}"))
        if name == "clip_percentiles" and not 0 <= value[0] < value[1] <= 100:
            raise FieldErrors((name, f"expected percentiles from 0 to 100, got {list(value)}"))
        kinds: dict[str, Callable[[float, float], Step]]
        kinds = {"clip_percentiles": ClipPercentiles, "rescale": Rescale, "window": Window}
        return kinds[name](*value)

    return record(build, fields)


def _tiling() -> Parse[Tiling]:
    def build(**values: Any) -> Tiling:
        tiling = Tiling(**values)
        if any(edge is not None and edge % tiling.divisor for edge in tiling.patch):
            raise FieldErrors(("patch", f"expected multiples of the divisor {tiling.divisor}, got {tiling.patch}"))
        return tiling

    padding = {
        "mode": optional(one_of("constant", "edge", "reflect"), "constant"),
        "value": optional(number, 0.0),
    }
    return record(
        build,
        {
            "patch": Field(several(_edge, 3, "three edges (x, y, z) in voxels, null for a whole axis")),
            "divisor": optional(whole(1), 1),
            "overlap": optional(_between(0, LARGEST_OVERLAP), 0.5),
            "blending": optional(one_of("gaussian", "constant"), "gaussian"),
            "padding": optional(record(Padding, padding), Padding()),
        },
    )


def _output() -> Parse[Output]:
    def build(activation: Any, threshold: float, labels: tuple[tuple[int, str, str | None], ...]) -> Output:
        values = [value for value, _, _ in labels]
        if not values or len(set(values)) != len(values):
            raise FieldErrors(("labels", f"expected at least one label and each value once, got {values}"))
        table = (Label(v, n, c or _PALETTE[i % len(_PALETTE)]) for i, (v, n, c) in enumerate(labels))
        output = Output(activation, LabelTable(tuple(table)))
        try:
            return output if threshold == output.threshold else output.with_threshold(threshold)
        except UsageError as error:
            raise FieldErrors(("threshold", f"expected {error.expected}, got {error.got}")) from None

    label = {
        "value": Field(whole(1)),
        "name": Field(text),
        "colour": optional(matching(r"#[0-9a-fA-F]{6}", "a colour such as #e4572e")),
    }
    return record(
        build,
        {
            "activation": Field(one_of(*ACTIVATIONS)),
            "threshold": optional(_between(0, 1, open_ends=True), 0.5),
            "labels": Field(items(record(lambda value, name, colour: (value, name, colour), label))),
        },
    )


def _certificate() -> Parse[Certificate]:
    probe = {
        "shape": Field(several(whole(1), 5, "five edges (N, C, x, y, z)")),
        "seed": Field(whole(0)),
        "probabilities": Field(items(number)),
    }
    runtime = {
        "runtime": Field(text),
        "precision": Field(text),
        "version": Field(text),
        "label_agreement": Field(number),
        "dice": Field(items(number)),
        "max_probability_difference": Field(number),
    }

    def build_runtime(runtime: str, precision: str, version: str, **parity: Any) -> RuntimeParity:
        return RuntimeParity(runtime, precision, version, Parity(**parity))

    return record(
        Certificate,
        {
            "weights_sha256": Field(text),
            "date": Field(text),
            "probes": Field(items(record(ProbeInput, probe))),
            "runtimes": Field(items(record(build_runtime, runtime))),
        },
    )


def _codes(value: object) -> str:
    try:
        return check_codes(text(value))
    except ValueError:
        raise ValueError(f"expected axis codes such as RAS, or null for as stored, got {value!r}") from None


def _length(value: object) -> float:
    length = number(value)
    if length <= 0:
        raise ValueError(f"expected a positive length, got {length:g}")
    return length


def _edge(value: object) -> int | None:
    return None if value is None else whole(1)(value)


def _between(low: float, high: float, *, open_ends: bool = False) -> Parse[float]:
    def parse(value: object) -> float:
        inside = number(value)
        if not (low < inside < high if open_ends else low <= inside <= high):
            raise ValueError(f"expected a number from {low:g} to {high:g}, got {inside:g}")
        return inside

    return parse

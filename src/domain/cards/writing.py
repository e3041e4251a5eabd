"""Model cards and certificates as plain data."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from ..inference.patches import Tiling
from ..intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ..labels.label_map import Label, Output
from ..labels.postprocessing import FillHoles, KeepLargest, Postprocessing, RemoveSmall
from ..parity import Certificate
from ..plain import plain
from .model_card import Channel, Input, ModelCard

SCHEMA, SCHEMA_2 = "voxport/model-card/1", "voxport/model-card/2"
_STEPS: dict[type[Step], str] = {
    ClipPercentiles: "clip_percentiles",
    Rescale: "rescale",
    ShiftScale: "shift_scale",
    Window: "window",
    ZScore: "zscore",
}
_POSTPROCESSING: dict[type[Postprocessing], str] = {
    KeepLargest: "keep_largest",
    RemoveSmall: "remove_small",
    FillHoles: "fill_holes",
}
# What schema 2 has and schema 1 lacks, by what it belongs to.
_NEWER: dict[type, tuple[str, ...]] = {
    ModelCard: ("authors", "citation", "measure"),
    Input: ("crop", "resampling"),
    Channel: ("intensity",),
    Tiling: ("mirror", "windows", "context"),
    Output: ("resample", "order", "postprocessing", "temperature"),
    Label: ("channel", "also"),
}


def write_card(card: ModelCard) -> dict[str, Any]:
    """Return the card as plain data, which ``read_card`` reads back: in schema 1 where that can say all of it."""
    schema, tiling = (SCHEMA_2, "inference") if _needs_schema_2(card) else (SCHEMA, "tiling")
    names = ("name", "version", "description", "licence", "intended_use")
    return {
        "schema": schema,
        **{name: getattr(card, name) for name in names},
        **_newer(card),
        "input": _write_input(card.input),
        tiling: _write_tiling(card.tiling),
        "output": _write_output(card.output),
        "provenance": plain(card.provenance),
        "parity": None if card.parity is None else write_certificate(card.parity),
    }


def _needs_schema_2(card: ModelCard) -> bool:
    parts = (card, card.input, *card.input.channels, card.tiling, card.output, *card.output.table.labels)
    return (
        any(_newer(part) for part in parts)
        or any(isinstance(step, ZScore) and not _is_plain(step) for step in card.input.intensity)
        or isinstance(card.tiling.divisor, tuple)
        or card.output.activation == "labels"
        or (card.parity is not None and card.parity.pipeline != ())
    )


def _newer(value: Any) -> dict[str, Any]:
    """Return what schema 2 alone has of a part of the card, without defaults."""
    found = {}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in _NEWER[type(value)] and getattr(value, field.name) != default:
            found[field.name] = plain(getattr(value, field.name))
    return found


def _write_input(given: Input) -> dict[str, Any]:
    channels = []
    for channel in given.channels:
        own = {} if channel.intensity is None else {"intensity": _write_steps(channel.intensity)}
        channels.append({"name": channel.name, "source": channel.source, **own})
    return {
        "axes": given.axes,
        "channels": channels,
        "orientation": given.orientation,
        "spacing": plain(given.spacing),
        "spacing_unit": given.spacing_unit,
        "intensity": _write_steps(given.intensity),
        **_newer(given),
    }


def _write_steps(steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    return [{_STEPS[type(step)]: _arguments(step)} for step in steps]


def _is_plain(step: ZScore) -> bool:
    return step.within != "crop" and step.mean is None and step.std is None


def _arguments(step: Step) -> Any:
    values = plain(step)
    if isinstance(step, ZScore):
        return {"nonzero": step.within == "nonzero"} if _is_plain(step) else values
    if isinstance(step, ShiftScale):
        del values["nonzero"]
    return list(values.values())


def _write_tiling(tiling: Tiling) -> dict[str, Any]:
    written = plain(tiling)
    newer = _newer(tiling)
    for name in _NEWER[Tiling]:
        del written[name]
    if "mirror" in newer:
        newer["mirror"] = ["xyz"[axis] for axis in tiling.mirror]
    if tiling.padding.to is None:
        del written["padding"]["to"]
    return {**written, **newer}


def _write_output(output: Output) -> dict[str, Any]:
    steps = [
        {_POSTPROCESSING[type(step)]: plain(step) if isinstance(step, RemoveSmall) else list(step.labels)}
        for step in output.postprocessing
    ]
    return {
        "activation": output.activation,
        "threshold": output.threshold,
        **({} if output.tensor is None else {"tensor": output.tensor}),
        **({"bounded": True} if output.bounded else {}),
        "labels": [{"value": x.value, "name": x.name, "colour": x.colour, **_newer(x)} for x in output.table.labels],
        **_newer(output),
        **({"postprocessing": steps} if steps else {}),
    }


def write_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return a parity certificate as plain data."""
    runtimes = [
        {"runtime": r.runtime, "precision": r.precision, "version": r.version, **plain(r.parity)}
        for r in certificate.runtimes
    ]
    for entry in runtimes:
        if not entry["logit_spread"]:
            del entry["logit_spread"]
    written = {**plain(certificate), "runtimes": runtimes}
    if not certificate.pipeline:
        del written["pipeline"]
    return written

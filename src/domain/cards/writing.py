"""Model cards and certificates as plain data."""

from __future__ import annotations

from typing import Any

from ..intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ..parity import Certificate
from ..plain import plain
from .model_card import ModelCard

SCHEMA = "voxport/model-card/1"
_STEPS: dict[type[Step], str] = {
    ClipPercentiles: "clip_percentiles",
    Rescale: "rescale",
    ShiftScale: "shift_scale",
    Window: "window",
    ZScore: "zscore",
}


def write_card(card: ModelCard) -> dict[str, Any]:
    """Return the card as plain data, which ``read_card`` reads back."""
    steps = [{_STEPS[type(step)]: _arguments(step)} for step in card.input.intensity]
    output, tiling = card.output, plain(card.tiling)
    if card.tiling.padding.to is None:
        del tiling["padding"]["to"]
    return {
        "schema": SCHEMA,
        **plain(card),
        "input": {"axes": card.input.axes, **plain(card.input), "intensity": steps},
        "tiling": tiling,
        "output": {
            "activation": output.activation,
            "threshold": output.threshold,
            **({} if output.tensor is None else {"tensor": output.tensor}),
            **({"bounded": True} if output.bounded else {}),
            "labels": plain(output.table.labels),
        },
        "parity": None if card.parity is None else write_certificate(card.parity),
    }


def _arguments(step: Step) -> Any:
    values = plain(step)
    if isinstance(step, ShiftScale):
        del values["nonzero"]
    return values if isinstance(step, ZScore) else list(values.values())


def write_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return a parity certificate as plain data."""
    runtimes = [
        {"runtime": r.runtime, "precision": r.precision, "version": r.version, **plain(r.parity)}
        for r in certificate.runtimes
    ]
    for entry in runtimes:
        if not entry["logit_spread"]:
            del entry["logit_spread"]
    return {**plain(certificate), "runtimes": runtimes}

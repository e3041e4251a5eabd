"""Model cards and certificates as plain data."""

from __future__ import annotations

from typing import Any

from ..parity import Certificate
from ..plain import plain
from .model_card import ModelCard

SCHEMA = "voxport/model-card/1"


def write_card(card: ModelCard) -> dict[str, Any]:
    """Return the card as plain data, which ``read_card`` reads back."""
    steps = [step.to_mapping() for step in card.input.intensity]
    output = card.output
    return {
        "schema": SCHEMA,
        **plain(card),
        "input": {"axes": card.input.axes, **plain(card.input), "intensity": steps},
        "output": {
            "activation": output.activation,
            "threshold": output.threshold,
            "labels": plain(output.table.labels),
        },
        "parity": None if card.parity is None else write_certificate(card.parity),
    }


def write_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return a parity certificate as plain data."""
    runtimes = [
        {"runtime": r.runtime, "precision": r.precision, "version": r.version, **plain(r.parity)}
        for r in certificate.runtimes
    ]
    return {**plain(certificate), "runtimes": runtimes}

"""A card's pipeline in bioimage.io's words, and what they cannot say."""

from __future__ import annotations

from typing import Any

from ....domain.cards.model_card import ModelCard, ResamplingRule
from ....domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore

_SPACE = ["x", "y", "z"]


def preprocessing(card: ModelCard) -> list[dict[str, Any]] | None:
    """Return the intensity steps; None if one of them cannot be said."""
    steps = {card.input.steps(channel) for channel in card.input.channels}
    said = [_said(step) for step in steps.pop()]
    if steps or not all(said):
        return None
    return [{"id": name, "kwargs": values} for entries in said for name, values in entries]


def _said(step: Step) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(step, ZScore) and step.within == "all":
        if step.given is not None and step.mean is not None and step.std:
            return [("fixed_zero_mean_unit_variance", {"mean": step.mean, "std": step.std})]
        return [("zero_mean_unit_variance", {"axes": _SPACE})]
    if isinstance(step, ShiftScale) and not step.nonzero:
        return [("scale_linear", {"gain": step.scale, "offset": step.shift * step.scale})]
    if isinstance(step, Window):
        return [("clip", {"min": step.low, "max": step.high})]
    if isinstance(step, ClipPercentiles):
        return [("clip", {"min_percentile": step.low, "max_percentile": step.high, "axes": _SPACE})]
    if isinstance(step, Rescale):
        entries: list[tuple[str, dict[str, Any]]] = [("scale_range", {"axes": _SPACE})]
        if (step.low, step.high) != (0, 1):
            entries.append(("scale_linear", {"gain": step.high - step.low, "offset": step.low}))
        return entries
    return []


def unsaid(card: ModelCard) -> tuple[str, ...]:
    """Return a line for each part of the card that the package's description leaves out."""
    image, output = card.input, card.output
    parts = {
        "intensity steps: the package takes volumes that are prepared already": preprocessing(card) is None,
        "crop": image.crop is not None,
        f"orientation {image.orientation}": image.orientation is not None,
        "resampling to the spacing: the package states the spacing alone": image.spacing is not None,
        f"resampling of order {image.resampling.order}": image.resampling != ResamplingRule(),
        "test-time mirroring": bool(card.tiling.mirror),
        "blending of overlapping patches": card.tiling.overlap > 0,
        f"threshold {output.threshold:g}: the package gives probabilities": output.threshold != 0.5,
        "values, channels and order of the labels": any(
            label.channel is not None or label.value != i for i, label in enumerate(output.table.labels, 1)
        ),
        f"way back to the stored grid: {output.resample}, order {output.order}": image.spacing is not None
        and (output.resample, output.order) != ("logits", 1),
        "postprocessing of the labels": bool(output.postprocessing),
    }
    return tuple(f"not in bioimage.io's words: {line}" for line, applies in parts.items() if applies)

"""A card's pipeline in bioimage.io's words, and what they cannot say."""

from __future__ import annotations

from typing import Any

from ....domain.cards.model_card import ModelCard, ResamplingRule
from ....domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore

_SPACE = ["x", "y", "z"]
_Entry = tuple[str, dict[str, Any]]


def preprocessing(card: ModelCard) -> list[dict[str, Any]] | None:
    """Return the intensity steps; None if one of them cannot be said.

    bioimage.io takes all statistics of the volume as it is stored, a card those of the result of the previous steps.
    Its clip to percentiles takes values of the volume, a card's interpolates; its scale_range interpolates too.
    """
    each = {card.input.steps(channel) for channel in card.input.channels}
    steps = list(each.pop())
    first: list[list[_Entry]] = []
    if len(steps) > 1 and isinstance(steps[0], ClipPercentiles) and isinstance(steps[1], Rescale):
        first.append(_clipped_range(steps[0], steps[1]))
        del steps[:2]
    late = steps if first else steps[1:]
    said = [*first, *map(_said, steps)]
    if each or not all(said) or any(_has_statistics(step) for step in late):
        return None
    return [{"id": name, "kwargs": values} for entries in said for name, values in entries]


def _has_statistics(step: Step) -> bool:
    return isinstance(step, ClipPercentiles | Rescale) or (isinstance(step, ZScore) and step.given is None)


def _clipped_range(clip: ClipPercentiles, rescale: Rescale) -> list[_Entry]:
    percentiles = {"min_percentile": clip.low, "max_percentile": clip.high}
    ranged: list[_Entry] = [("scale_range", {"axes": _SPACE, **percentiles}), ("clip", {"min": 0.0, "max": 1.0})]
    return ranged + _from_unit(rescale)


def _from_unit(rescale: Rescale) -> list[_Entry]:
    """The step from 0 and 1 to the range, where it is another one."""
    low, high = rescale.low, rescale.high
    return [] if (low, high) == (0, 1) else [("scale_linear", {"gain": high - low, "offset": low})]


def _said(step: Step) -> list[_Entry]:
    if isinstance(step, ZScore) and step.within == "all":
        if step.given is not None and step.mean is not None and step.std:
            return [("fixed_zero_mean_unit_variance", {"mean": step.mean, "std": step.std})]
        return [("zero_mean_unit_variance", {"axes": _SPACE})]
    if isinstance(step, ShiftScale) and not step.nonzero:
        return [("scale_linear", {"gain": step.scale, "offset": step.shift * step.scale})]
    if isinstance(step, Window):
        return [("clip", {"min": step.low, "max": step.high})]
    if isinstance(step, Rescale):
        return [("scale_range", {"axes": _SPACE}), *_from_unit(step)]
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
        f"temperature {output.temperature:g} of the probabilities": output.temperature != 1,
        f"{card.measure} measures": card.measure is not None,
    }
    return tuple(f"not in bioimage.io's words: {line}" for line, applies in parts.items() if applies)

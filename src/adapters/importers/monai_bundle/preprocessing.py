"""A bundle's preprocessing as the input of a card."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ....domain.cards.model_card import Channel, Crop, Input, ResamplingRule
from ....domain.inference.patches import Tiling
from ....domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ....domain.plain import first_line
from .configuration import Component, Configuration

# They change neither values nor places; volumes are read by voxport.
_WITHOUT_EFFECT = frozenset(
    {"LoadImage", "EnsureChannelFirst", "AddChannel", "EnsureType", "CastToType", "ToTensor", "ToDevice", "Identity"}
)


@dataclass
class Preprocessing:
    """The words of a preprocessing read so far."""

    channels: int
    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None
    order: Literal[1, 3] = 1
    when: Literal["after_intensity", "before_intensity"] = "before_intensity"
    crop: Crop | None = None
    steps: list[tuple[Step, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    divisor: int | None = None

    def input(self, names: Sequence[str]) -> Input:
        """Return the card's input; ``names`` are those of the channels."""
        alike = all(len(set(steps)) == 1 for steps in self.steps)
        own = None if alike else [tuple(steps[i] for steps in self.steps) for i in range(self.channels)]
        return Input(
            tuple(Channel(name, i, own[i] if own else None) for i, name in enumerate(names)),
            "XYZ",
            self.orientation,
            self.spacing,
            None if self.spacing is None else "mm",
            tuple(steps[0] for steps in self.steps) if alike else (),
            self.crop,
            ResamplingRule(self.order, when=self.when, align="first") if self.spacing else ResamplingRule(),
        )

    def tiling(self, tiling: Tiling) -> Tiling:
        """Return the inferer's tiling, with the divisor that whole volumes are padded to."""
        return tiling if self.divisor is None else replace(tiling, divisor=self.divisor)


def read_preprocessing(configuration: Configuration, channels: int) -> Preprocessing:
    """Read the section ``preprocessing``. Raises ModelError for a word or an argument that a card cannot say."""
    found, image = Preprocessing(channels), "image"
    for component in configuration.components("preprocessing"):
        word, keys = component.word_of(_WORDS.keys() | _WITHOUT_EFFECT), component.get("keys")
        keys = [keys] if isinstance(keys, str) else keys
        if word == "LoadImage" and keys:
            image = "image" if "image" in keys else keys[0]
            if len(set(keys) - {"label"}) > 1:
                raise component.refused("one image", f"{len(keys)}, {', '.join(map(str, keys))}")
        if (keys and image not in keys) or word in _WITHOUT_EFFECT:
            continue
        if word not in _WORDS:
            expected = f"one of {', '.join(sorted({*_WORDS, *_WITHOUT_EFFECT}))}"
            reason = _REASONS.get(component.word_of(_REASONS), "" if component.is_known else _OWN)
            got = f"{component.target}{reason}"
            raise component.refused(expected, got)
        apply_word(_WORDS[word], found, component)
    return found


def apply_word(word: Callable[[Any, Component], None], found: Any, component: Component) -> None:
    """Apply a word, and raise ModelError for arguments of other types than its class takes."""
    try:
        word(found, component)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise component.refused(f"arguments that {component.word} takes", first_line(error)) from None


_OWN = ", which is the bundle's own code and is not run"
_REASONS: Mapping[str, str] = {
    "Resize": ", which stretches every volume to one size",
    "ConcatItems": ", which joins several images",
    **dict.fromkeys(("AddGuidanceFromPointsDeepEdit", "AddGuidanceSignalDeepEdit"), ", which asks for clicks"),
}


def _orientation(found: Preprocessing, component: Component) -> None:
    component.only("axcodes", "labels")
    axcodes = component.get("axcodes")
    if found.spacing is not None and len(set(found.spacing)) > 1:
        got = "after Spacing with unequal edges"
        raise component.refused("Orientation before Spacing", got)
    if not isinstance(axcodes, str | list):
        got = "as_closest_canonical or none"
        raise component.refused("axcodes such as RAS", got, "write axcodes: RAS")
    found.orientation = "".join(axcodes)


def _spacing(found: Preprocessing, component: Component) -> None:
    component.only("pixdim", "mode", "padding_mode", "align_corners", "diagonal", "scale_extent")
    if found.steps:
        found.when = "after_intensity"
    pixdim = component.get("pixdim")
    edges = [float(edge) for edge in (pixdim if isinstance(pixdim, list) else [pixdim] * 3) if edge is not None]
    if len(edges) != 3 or min(edges) <= 0:
        raise component.refused("pixdim of three positive lengths", repr(pixdim))
    mode = component.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, list) else mode
    orders: dict[Any, Literal[1, 3]] = {"bilinear": 1, "trilinear": 1, 1: 1, 3: 3}
    if mode not in orders:
        raise component.refused("mode bilinear or 3", repr(mode))
    for name, usual in (("diagonal", False), ("scale_extent", False), ("padding_mode", "border")):
        given = component.get(name, usual)
        if given not in (usual, [usual]):
            raise component.refused(f"{name} {usual}", repr(given))
    found.spacing, found.order = (edges[0], edges[1], edges[2]), orders[mode]


def _scale_range(found: Preprocessing, component: Component) -> None:
    component.only("a_min", "a_max", "b_min", "b_max", "clip")
    low, high = component.get("a_min"), component.get("a_max")
    to = component.get("b_min"), component.get("b_max")
    if low >= high or to == (None, None) or None in to or to[0] >= to[1]:
        got = f"{low} to {high} and {to[0]} to {to[1]}"
        raise component.refused("two rising ranges", got)
    if component.get("clip", False):
        _add(found, component, Window(float(low), float(high)))
    scale = (to[1] - to[0]) / (high - low)
    _add(found, component, ShiftScale(to[0] / scale - low, scale))


def _scale_percentiles(found: Preprocessing, component: Component) -> None:
    known = ("lower", "upper", "b_min", "b_max", "clip", "relative", "channel_wise")
    component.only(*known)
    b_min, b_max = component.get("b_min"), component.get("b_max")
    if not component.get("clip", False) or component.get("relative", False) or None in (b_min, b_max):
        got = "another form"
        raise component.refused("clip true, relative false and b_min, b_max", got)
    _check_channel_wise(found, component)
    _add(found, component, ClipPercentiles(float(component.get("lower")), float(component.get("upper"))))
    _add(found, component, Rescale(float(b_min), float(b_max)))


def _scale(found: Preprocessing, component: Component) -> None:
    component.only("minv", "maxv", "factor", "channel_wise")
    low, high, factor = component.get("minv", 0.0), component.get("maxv", 1.0), component.get("factor")
    if low is None and high is None and factor is not None:
        _add(found, component, ShiftScale(0.0, 1.0 + factor))
        return
    if low is None or high is None or low >= high:
        raise component.refused("minv below maxv", f"{low} and {high}")
    _check_channel_wise(found, component)
    _add(found, component, Rescale(float(low), float(high)))


def _normalize(found: Preprocessing, component: Component) -> None:
    component.only("subtrahend", "divisor", "nonzero", "channel_wise")
    within: Literal["all", "nonzero"] = "nonzero" if component.get("nonzero", False) else "all"
    mean, deviation = component.get("subtrahend"), component.get("divisor")
    if mean is None and deviation is None:
        _check_channel_wise(found, component)
        _add(found, component, ZScore(within))
        return
    if mean is None or deviation is None:
        got = "one of them"
        raise component.refused("subtrahend and divisor, or neither", got)
    means, deviations = (v if isinstance(v, list) else [v] * found.channels for v in (mean, deviation))
    if len(means) != found.channels or len(deviations) != found.channels:
        got = f"{len(means)} and {len(deviations)} numbers"
        raise component.refused(f"one for each of {found.channels} channels", got)
    # MONAI divides by one where the divisor is zero.
    found.steps.append(tuple(ZScore(within, float(m), float(d) or 1.0) for m, d in zip(means, deviations, strict=True)))


def _crop(found: Preprocessing, component: Component) -> None:
    known = ("source_key", "select_fn", "margin", "allow_smaller", "k_divisible", "channel_indices", "mode")
    component.only(*known, "start_coord_key", "end_coord_key")
    margin = component.get("margin", 0)
    margin = max(margin) if isinstance(margin, list) else margin
    if component.get("k_divisible", 1) not in (1, [1, 1, 1]) or component.get("channel_indices") is not None:
        raise component.refused("k_divisible 1 and all channels", "others")
    kind, threshold = _foreground(component)
    for steps in reversed(found.steps):
        step = steps[0]
        if isinstance(step, ShiftScale) and not step.nonzero and kind == "above":
            threshold = threshold / step.scale - step.shift
        elif not (isinstance(step, Window) and kind == "above" and step.low <= threshold < step.high):
            got = f"after {type(step).__name__}"
            raise component.refused("CropForeground before the words that take statistics", got)
    found.crop = Crop(kind, threshold, margin)
    if found.spacing is not None:
        found.notes.append(
            "CropForeground is taken before Spacing, so patches lie elsewhere than MONAI's: compare both"
        )
    if margin and not component.get("allow_smaller", False):
        found.notes.append("CropForeground: the margin ends at the volume's border, where MONAI pads beyond it")


def _foreground(component: Component) -> tuple[Literal["above", "nonzero"], float]:
    """Return the foreground that ``select_fn`` names: ``lambda x: x > NUMBER`` or ``lambda x: x != 0``."""
    given = component.arguments.get("select_fn", "$lambda x: x > 0")
    try:
        tree = ast.parse(str(given).removeprefix("$").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    match tree:
        case ast.Lambda(
            args=ast.arguments(args=[ast.arg(arg=name)]),
            body=ast.Compare(left=ast.Name(id=used), ops=[op], comparators=[number]),
        ) if used == name:
            value = component.configuration.resolved(component.where, f"${ast.unparse(number)}")
            if isinstance(op, ast.Gt) and isinstance(value, int | float):
                return "above", float(value)
            if isinstance(op, ast.NotEq) and value == 0:
                return "nonzero", 0.0
    got = f"{given!r}, which is code and is not run"
    raise component.refused("select_fn such as lambda x: x > 0", got)


def _pad(found: Preprocessing, component: Component) -> None:
    component.only("k", "mode", "method")
    k = component.get("k")
    k = k[0] if isinstance(k, list) and len(set(k)) == 1 else k
    if not isinstance(k, int) or component.get("mode", "constant") != "constant" or component.has("method"):
        expected = "DivisiblePad with one k, constant and symmetric"
        raise component.refused(expected, "another")
    found.divisor = k


def _check_channel_wise(found: Preprocessing, component: Component) -> None:
    if found.channels > 1 and not component.get("channel_wise", False):
        got = f"statistics over all {found.channels} channels together"
        raise component.refused("channel_wise true", got)


def _add(found: Preprocessing, component: Component, *steps: Step) -> None:
    if found.spacing is not None and found.when == "after_intensity":
        raise component.refused("Spacing before all intensity words, or after all of them", "some before, some after")
    found.steps.append(steps if len(steps) > 1 else steps * found.channels)


_WORDS: Mapping[str, Callable[[Preprocessing, Component], None]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ScaleIntensity": _scale,
    "NormalizeIntensity": _normalize,
    "CropForeground": _crop,
    "DivisiblePad": _pad,
}

"""nnU-Net's preprocessing, sliding window and labels in the words of a model card."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from ....domain.cards.model_card import Axes, Channel, Crop, Input, ResamplingRule
from ....domain.errors import ModelError
from ....domain.geometry.grid import shape3
from ....domain.inference.patches import Padding, Tiling
from ....domain.intensity import Rescale, ShiftScale, Step, Window, ZScore
from ....domain.labels.label_map import PALETTE, Label, LabelTable, Output
from ....domain.labels.postprocessing import KeepLargest
from .plans import Plans, wrong

T = TypeVar("T")
# Readers of nnU-Net, and the orientation that they bring volumes to.
_READERS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "Tiff3DIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
_SPLINES = "resample_data_or_seg_to_shape"
_TORCH = "resample_torch_fornnunet"
_NO_RESAMPLING = "no_resampling_hack"
_LEAST_DEVIATION = 1e-8  # as in nnU-Net
_COARSE = 3  # times the spacing of the other axes


def describe_input(plans: Plans) -> Input:
    """Return the card's input.

    Raises:
        ModelError: a reader, preprocessor, resampling or normalisation that a card cannot say.
    """
    preprocessor = plans.values.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise wrong("preprocessor_name", "DefaultPreprocessor", preprocessor)
    reader = plans.whole.get("image_reader_writer")
    if not isinstance(reader, str) or reader not in _READERS:
        raise wrong("image_reader_writer", f"one of {', '.join(_READERS)}", reader)
    schemes, masked = plans.of_channels("normalization_schemes"), plans.of_channels("use_mask_for_norm")
    channels = [
        Channel(name, number, _steps(plans, number, schemes[number], masked[number] is True))
        for number, name in enumerate(plans.channels)
    ]
    order, rule = _rule("resampling_fn_data", plans, (1, 3))
    if rule != _rule("resampling_fn_probabilities", plans, (0, 1, 3))[1]:
        raise wrong("resampling_fn_probabilities", "the rule of resampling_fn_data for coarse axes", "another one")
    lengths: tuple[float | None, ...] = (None,) * plans.flat + plans.spacing
    axes: Axes = "XYZ" if plans.transpose == (2, 1, 0) else "ZYX"
    return Input(
        tuple(channels),
        axes,
        _READERS[reader],
        None if rule == _NO_RESAMPLING else _in_xyz(plans, lengths),
        None if rule == _NO_RESAMPLING else "mm",
        (),
        Crop("nonzero"),
        ResamplingRule(order, "auto" if rule == "auto" else None, "after_intensity", "extent"),
    )


def describe_tiling(plans: Plans, divisor: Sequence[int], mirrored: object) -> Tiling:
    """Return the card's sliding window.

    Args:
        plans: the configuration.
        divisor: of the network's axes, two or three.
        mirrored: the network's spatial axes to mirror.
    """
    one = (1,) * plans.flat
    axes = range(len(plans.patch))
    if not isinstance(mirrored, list | tuple) or not all(axis in axes for axis in mirrored):
        raise wrong("inference_allowed_mirroring_axes", "axes of the network", mirrored)
    return Tiling(
        shape3(_in_xyz(plans, one + plans.patch)),
        shape3(_in_xyz(plans, one + tuple(divisor))),
        0.5,
        "gaussian",
        Padding("constant", 0.0, "patch"),
        tuple(sorted(2 - plans.transpose[axis + plans.flat] for axis in mirrored)),
        windows="nnunet",
    )


def describe_output(plans: Plans, postprocessing: tuple[KeepLargest, ...]) -> Output:
    """Return the card's output: one label a class, or one a region, later regions over earlier ones."""
    manager = plans.whole.get("label_manager", "LabelManager")
    if manager != "LabelManager":
        raise wrong("label_manager", "LabelManager", manager)
    order, _ = _rule("resampling_fn_probabilities", plans, (0, 1, 3))
    regions = region_values(plans)
    activation: Literal["softmax", "sigmoid"] = "softmax" if regions is None else "sigmoid"
    named = _classes(plans) if regions is None else regions
    labels = tuple(
        Label(value, name, PALETTE[i % len(PALETTE)], also={} if len(parts) == 1 else {"region": list(parts)})
        for i, (name, value, parts) in enumerate(named)
    )
    return Output(activation, LabelTable(labels), order=order, postprocessing=postprocessing)


def region_values(plans: Plans) -> list[tuple[str, int, tuple[int, ...]]] | None:
    """Return name, value in the label map and labels of each region; None without regions."""
    parts = {name: _parts(name, value) for name, value in _labels(plans).items() if name != "ignore"}
    if not any(len(values) > 1 for values in parts.values()):
        return None
    order: Any = plans.dataset.get("regions_class_order")
    regions = [(name, values) for name, values in parts.items() if set(values) != {0}]
    numbers = [value for value in order if type(value) is int and value > 0] if isinstance(order, list) else []
    if not len(numbers) == len(set(numbers)) == len(regions):
        raise wrong("regions_class_order", f"{len(regions)} different labels, one for each region", order)
    return [(name, value, values) for (name, values), value in zip(regions, numbers, strict=True)]


def describe_postprocessing(written: Mapping[str, Any]) -> tuple[KeepLargest, ...]:
    """Return the steps that nnU-Net's ``postprocessing.json`` lists.

    Raises:
        ModelError: another step than the largest component.
    """
    functions, arguments = written.get("postprocessing_fns", []), written.get("postprocessing_kwargs", [])
    if not isinstance(functions, list) or not isinstance(arguments, list) or len(functions) != len(arguments):
        raise wrong("postprocessing_kwargs", "the arguments of each of postprocessing_fns", arguments)
    steps = []
    for function, given in zip(functions, arguments, strict=True):
        if not isinstance(given, Mapping):
            raise wrong("postprocessing_kwargs", "a mapping", given)
        if function != "remove_all_but_largest_component_from_segmentation":
            raise wrong("postprocessing_fns", "remove_all_but_largest_component_from_segmentation", function)
        steps.append(KeepLargest(tuple(dict.fromkeys(_flat(given.get("labels_or_regions"))))))
    return tuple(steps)


def _in_xyz(plans: Plans, values: Sequence[T]) -> tuple[T, T, T]:
    """Bring one value for each axis of the network into the order x, y, z."""
    x, y, z = (values[plans.transpose.index(axis)] for axis in (2, 1, 0))
    return x, y, z


def _steps(plans: Plans, channel: int, scheme: object, masked: bool) -> tuple[Step, ...]:
    within: Literal["all", "crop"] = "crop" if masked else "all"
    schemes: dict[str, Callable[[], tuple[Step, ...]]] = {
        "CTNormalization": lambda: _ct(plans.intensities(channel)),
        "ZScoreNormalization": lambda: (ZScore(within),),
        "NoNormalization": lambda: (),
        "RescaleTo01Normalization": lambda: (Rescale(0.0, 1.0),),
        "RGBTo01Normalization": lambda: (ShiftScale(0.0, 1 / 255),),
    }
    if not isinstance(scheme, str) or scheme not in schemes:
        raise wrong("normalization_schemes", f"one of {', '.join(schemes)}", scheme)
    return schemes[scheme]()


def _ct(found: Mapping[str, Any]) -> tuple[Step, ...]:
    keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
    try:
        low, high, mean, deviation = (float(found[key]) for key in keys)
    except (KeyError, TypeError, ValueError):
        raise wrong("foreground_intensity_properties_per_channel", ", ".join(keys), dict(found)) from None
    if not (math.isfinite(mean) and low < high and 0 <= deviation < math.inf):
        raise wrong("foreground_intensity_properties_per_channel", "finite statistics, of several values", dict(found))
    return (Window(low, high), ZScore(mean=mean, std=max(deviation, _LEAST_DEVIATION)))


def _rule(key: str, plans: Plans, orders: tuple[int, ...]) -> tuple[Any, str | None]:
    """Return the order of a resampling function, and ``auto`` if coarse axes are apart."""
    name, given = plans.values.get(key), plans.values.get(f"{key}_kwargs", {})
    if name == _NO_RESAMPLING:
        return 1, _NO_RESAMPLING
    if name not in (_SPLINES, _TORCH) or not isinstance(given, Mapping):
        raise wrong(key, f"{_SPLINES}, {_TORCH} or {_NO_RESAMPLING}", name)
    order = given.get("order", 3) if name == _SPLINES else 1
    apart = given.get("force_separate_z", False if name == _SPLINES else None)
    linear = (
        given.get("mode", "linear") == "linear" and given.get("aniso_axis_mode", "nearest-exact") == "nearest-exact"
    )
    usual = given.get("order_z", 0) == 0 and given.get("separate_z_anisotropy_threshold", _COARSE) == _COARSE
    if order not in orders or apart not in (None, False) or not linear or not usual or given.get("is_seg"):
        expected = f"order {' or '.join(map(str, orders))}, order_z 0 and force_separate_z null or false"
        raise wrong(f"{key}_kwargs", expected, dict(given))
    return order, "auto" if apart is None else None


def _labels(plans: Plans) -> Mapping[str, Any]:
    labels = plans.dataset.get("labels")
    if not isinstance(labels, Mapping) or labels.get("background") != 0:
        raise wrong("labels", "names with numbers, and background 0", labels)
    return labels


def _classes(plans: Plans) -> list[tuple[str, int, tuple[int, ...]]]:
    parts = {name: _parts(name, value) for name, value in _labels(plans).items() if name != "ignore"}
    found = sorted((values[0], name) for name, values in parts.items())
    if [value for value, _ in found] != list(range(len(found))) or len(found) < 2:
        raise wrong("labels", "the values 0, 1, 2, ... without a gap", dict(plans.dataset["labels"]))
    return [(name, value, (value,)) for value, name in found[1:]]


def _parts(name: str, value: object) -> tuple[int, ...]:
    values = tuple(_flat(value))
    if not values:
        raise wrong("labels", f"a number or several for {name}", value)
    return values


def _flat(value: object) -> list[int]:
    """Return the labels of a label, a region, or a list of them."""
    if isinstance(value, list | tuple):
        return [label for part in value for label in _flat(part)]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ModelError("labels", expected="whole numbers", got=str(value), do="correct dataset.json")
    return [value]

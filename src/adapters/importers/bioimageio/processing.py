"""A package's steps before the network as intensity steps, and those after it as an activation with labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ....domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ....domain.labels.label_map import Activation, Label, LabelTable, Output
from .package import Operation, Package, Tensor

Array = NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_SMALL = 1e-3
_COLOURS = ("#e4572e", "#17bebb", "#ffc914", "#2e86ab", "#76b041", "#8e44ad")
_FLOATS = ("float32", "float64")


def read_steps(package: Package, tensor: Tensor, channels: int) -> list[tuple[Step, ...]]:
    """Return the intensity steps of each channel. Raises ModelError for a step that a card cannot say."""
    try:
        return [tuple(_steps(package, tensor, channel, channels)) for channel in range(channels)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        got = f"{type(error).__name__} {error}"
        raise package.refused("preprocessing", "steps as the format describes them", got) from None


def _steps(package: Package, tensor: Tensor, channel: int, channels: int) -> list[Step]:
    steps: list[Step] = []
    operations = list(tensor.operations)
    while operations:
        operation = operations.pop(0)
        if steps and _has_statistics(operation):
            expected = "statistics at the first step alone: bioimage.io takes those of the input as it is stored"
            raise package.refused("preprocessing", expected, f"{_text(operation)} behind another step")
        if operation.name == "scale_range":
            steps += _ranged(package, operation, operations, tensor, channels)
        else:
            steps += _step(package, operation, tensor, channel, channels)
    return steps


def _has_statistics(operation: Operation) -> bool:
    of_clip = operation.name == "clip" and any(key.endswith("_percentile") for key in operation.values)
    of_values = operation.name == "zero_mean_unit_variance" and operation.values.get("mode") != "fixed"
    return operation.name == "scale_range" or of_clip or of_values


def _step(package: Package, operation: Operation, tensor: Tensor, channel: int, channels: int) -> list[Step]:
    values = operation.values

    def own(key: str, default: float | None = None) -> float:
        given = values.get(key, default)
        if isinstance(given, Sequence) and len(given) > 1:
            return float(given[_position(package, operation, channel)])
        return float(given[0] if isinstance(given, Sequence) else given)

    fixed = operation.name == "zero_mean_unit_variance" and values.get("mode") == "fixed"
    if operation.name == "fixed_zero_mean_unit_variance" or fixed:
        return [ZScore("all", own("mean"), own("std"))]
    if operation.name == "zero_mean_unit_variance":
        _whole(package, operation, tensor, channels)
        return [ZScore()]
    if operation.name == "scale_linear" and own("gain", 1.0):
        gain = own("gain", 1.0)
        return [ShiftScale(own("offset", 0.0) / gain, gain)]
    if operation.name == "clip":
        return [_clip(package, operation, tensor, channels)]
    if operation.name == "ensure_dtype" and values.get("dtype") in _FLOATS:
        return []
    raise package.refused("preprocessing", "steps that a card can say", _text(operation))


def _ranged(
    package: Package, operation: Operation, rest: list[Operation], tensor: Tensor, channels: int
) -> tuple[Step, ...]:
    """scale_range to the whole range, or to percentiles with a clip to 0 and 1 behind it, which is taken too."""
    _whole(package, operation, tensor, channels)
    values = operation.values
    if values.get("reference_tensor") not in (None, tensor.name):
        raise package.refused("preprocessing", "a range of the input itself", _text(operation))
    low, high = float(values.get("min_percentile", 0.0)), float(values.get("max_percentile", 100.0))
    if (low, high) == (0.0, 100.0):
        return (Rescale(0.0, 1.0),)
    behind = rest[0] if rest else None
    if behind is None or behind.name != "clip" or (behind.values.get("min"), behind.values.get("max")) != (0, 1):
        expected = "scale_range of percentiles with a clip to 0 and 1 behind it: a card cannot leave values beyond them"
        raise package.refused("preprocessing", expected, _text(operation))
    rest.pop(0)
    return ClipPercentiles(low, high), Rescale(0.0, 1.0)


def _clip(package: Package, operation: Operation, tensor: Tensor, channels: int) -> Step:
    values = operation.values
    fixed = [values.get(key) for key in ("min", "max")]
    percentiles = [values.get(f"{key}_percentile") for key in ("min", "max")]
    if percentiles == [None, None]:
        low, high = (
            end if value is None else float(value) for value, end in zip(fixed, (-_LARGEST, _LARGEST), strict=True)
        )
        return Window(low, high)
    if fixed != [None, None]:
        raise package.refused("preprocessing", "a clip to two numbers or to two percentiles", _text(operation))
    _whole(package, operation, tensor, channels)
    low, high = (end if value is None else float(value) for value, end in zip(percentiles, (0.0, 100.0), strict=True))
    return ClipPercentiles(low, high)


def _whole(package: Package, operation: Operation, tensor: Tensor, channels: int) -> None:
    """Raise ModelError unless statistics are of each channel's whole volume."""
    values = operation.values
    space, given = {"x", "y", "z"}, values.get("axes")
    if isinstance(given, str):
        given = [{"c": "channel", "b": "batch"}.get(letter, letter) for letter in given]
    axes = {
        axis.get("id", axis.get("type")) if isinstance(axis, Mapping) else str(axis) for axis in given or tensor.kinds
    }
    apart = space <= axes and (channels == 1 or "channel" not in axes)
    if values.get("mode") not in (None, "per_sample") or not apart or float(values.get("eps", 0)) > _SMALL:
        raise package.refused("preprocessing", "statistics of each channel's whole volume", _text(operation))


def _position(package: Package, operation: Operation, channel: int) -> int:
    if operation.values.get("axis", "channel") not in ("channel", "c"):
        raise package.refused("preprocessing", "one value for each channel", _text(operation))
    return channel


def read_output(package: Package, tensor: Tensor, channels: int, test: Array | None) -> Output:
    """Return activation, labels and threshold. ``test`` is the stated output ``(N, K, ., ., .)``, which decides where
    no step after the network does. Raises ModelError for a step that a card cannot say.
    """
    names = tensor.axis("channel").names or tuple(f"label {i}" for i in range(1, channels + 1))
    activation: Activation | None = None
    threshold = 0.5
    for operation in tensor.operations:
        if operation.name in ("sigmoid", "softmax") and activation is None:
            activation = "sigmoid" if operation.name == "sigmoid" else "softmax"
        elif operation.name == "binarize":
            threshold = _threshold(package, operation)
        elif operation.name != "ensure_dtype" and not _is_idle(operation):
            raise package.refused("postprocessing", "steps that a card can say", _text(operation))
    shared = activation == "softmax"
    if activation is None:
        activation, shared = _guessed(package, tensor, names, test)
    if activation == "labels":
        return Output(activation, LabelTable(_emitted(package, tensor, test)))
    if shared and channels == 1:
        raise package.refused("outputs", "two channels or more for softmax", "one")
    if shared and threshold != 0.5 and channels > 2:
        raise package.refused("postprocessing", "a threshold for one label", f"{threshold} for {channels - 1} labels")
    labelled = names[1:] if shared else names
    labels = tuple(Label(i, name, _COLOURS[(i - 1) % len(_COLOURS)]) for i, name in enumerate(labelled, 1))
    return Output(activation, LabelTable(labels), threshold)


def _guessed(package: Package, tensor: Tensor, names: tuple[str, ...], test: Array | None) -> tuple[Activation, bool]:
    """Return the activation of an output that no step changes, and whether its first channel is the background."""
    if test is None or not test.size:
        raise package.refused("outputs", "a sigmoid, a softmax, or a test tensor that tells", "none of them")
    whole = test.shape[1] == 1 and bool((test == np.rint(test)).all())
    if whole and (float(test.max()) > 1 or isinstance(tensor.data.get("values"), list)):
        return "labels", False
    raw = not any(operation.name == "binarize" for operation in tensor.operations)
    if not raw or (float(test.min()) >= 0 and float(test.max()) <= 1):
        return "none", len(names) > 1 and raw and bool(np.allclose(test.sum(axis=1), 1, atol=_SMALL))
    if len(names) > 1 and "background" in names[0].lower():
        return "softmax", True
    got = f"values from {float(test.min()):.3g} to {float(test.max()):.3g}"
    raise package.refused("outputs", "probabilities, labels, or a sigmoid or softmax after the network", got)


def _emitted(package: Package, tensor: Tensor, test: Array | None) -> tuple[Label, ...]:
    values = tensor.data.get("values")
    found = values if isinstance(values, list) else [] if test is None else np.unique(test).tolist()
    numbers = sorted({int(value) for value in found if isinstance(value, int | float)} - {0})
    if not numbers or numbers[0] < 0:
        raise package.refused("outputs", "the values of its labels", str(found))
    return tuple(Label(v, f"label {v}", _COLOURS[i % len(_COLOURS)]) for i, v in enumerate(numbers))


def _threshold(package: Package, operation: Operation) -> float:
    given = operation.values.get("threshold")
    found = set(given) if isinstance(given, list) else {given}
    value = found.pop() if len(found) == 1 else None
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise package.refused("postprocessing", "one threshold between 0 and 1", _text(operation))
    return float(value)


def _is_idle(operation: Operation) -> bool:
    """Whether a step leaves probabilities as they are: a clip to 0 and 1, or further."""
    low, high = (operation.values.get(key) for key in ("min", "max"))
    return operation.name == "clip" and (low is None or low <= 0) and (high is None or high >= 1)


def finish(output: Tensor) -> Callable[[Array], Array]:
    """Return the steps after the network as a function of what it gives ``(N, K, ., ., .)``."""

    def finished(found: Array) -> Array:
        for operation in output.operations:
            if operation.name == "sigmoid":
                found = 0.5 * (1 + np.tanh(0.5 * found))
            elif operation.name == "softmax":
                raised = np.exp(found - found.max(axis=1, keepdims=True))
                found = raised / raised.sum(axis=1, keepdims=True)
            elif operation.name == "binarize":
                given = operation.values["threshold"]
                limit = float(given[0] if isinstance(given, list) else given)
                found = (found > limit).astype(np.float32)
            elif operation.name == "clip":
                values = operation.values
                low, high = values.get("min"), values.get("max")
                found = np.clip(found, -math.inf if low is None else low, math.inf if high is None else high)
        return found.astype(np.float32, copy=False)

    return finished


def _text(operation: Operation) -> str:
    said = ", ".join(f"{key} {value}" for key, value in operation.values.items())
    return f"{operation.name} ({said})" if said else operation.name

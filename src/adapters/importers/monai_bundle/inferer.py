"""A bundle's inferer as the sliding window of a card."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ....domain.geometry.grid import Shape3
from ....domain.inference.patches import Padding, Tiling
from .configuration import Configuration
from .preprocessing import apply_word

_PADDING: Mapping[str, Literal["constant", "edge", "reflect"]] = {
    "constant": "constant",
    "replicate": "edge",
    "reflect": "reflect",
}
_LARGEST_DIVISOR = 32
# How to build the sliding window; they do not change its result.
_HOW = ("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps")
_SIGMA = 0.125


def read_inferer(configuration: Configuration, divisor: Shape3 | None) -> tuple[Tiling, tuple[str, ...]]:
    """Return the tiling of the section ``inferer``, with notes. A volume is inferred whole without the section.

    ``divisor`` is that of the network, if it is known.

    Raises:
        ModelError: an inferer or an argument that a card cannot say.
    """
    component = configuration.component("inferer")
    word = "SimpleInferer" if component is None else component.word_of(("SlidingWindowInferer", "SimpleInferer"))
    notes: tuple[str, ...] = ()
    if divisor is None and word == "SimpleInferer":
        notes = (f"the network's divisor is not known: {_LARGEST_DIVISOR} is assumed",)
    if component is None or word == "SimpleInferer":
        return Tiling((None, None, None), _plain(divisor or (_LARGEST_DIVISOR,) * 3), 0.0, "constant"), notes
    if word != "SlidingWindowInferer":
        raise component.refused("SlidingWindowInferer or SimpleInferer", component.target)
    found: list[Tiling] = []
    apply_word(lambda tilings, given: tilings.append(_sliding_window(given, divisor)), found, component)
    return found[0], notes


def _sliding_window(component: Any, divisor: Shape3 | None) -> Tiling:
    component.only("roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval", *_HOW)
    roi = component.get("roi_size")
    roi = roi if isinstance(roi, list) else [roi] * 3
    patch = tuple(None if edge is None or int(edge) <= 0 else int(edge) for edge in roi)
    if len(patch) != 3:
        raise component.refused("roi_size of three edges", repr(roi))
    overlap, mode = component.get("overlap", 0.25), component.get("mode", "constant")
    overlaps = set(overlap) if isinstance(overlap, list) else {overlap}
    if len(overlaps) != 1:
        raise component.refused("one overlap for all axes", repr(overlap))
    padding = component.get("padding_mode", "constant")
    if mode not in ("constant", "gaussian"):
        raise component.refused("mode constant or gaussian", repr(mode))
    if padding not in _PADDING:
        raise component.refused(f"padding_mode {', '.join(_PADDING)}", repr(padding))
    if mode == "gaussian" and component.get("sigma_scale", _SIGMA) != _SIGMA:
        raise component.refused(f"sigma_scale {_SIGMA}", repr(component.get("sigma_scale")))
    return Tiling(
        (patch[0], patch[1], patch[2]),
        _plain(_fitting(divisor, patch)),
        float(overlaps.pop()),
        mode,
        Padding(_PADDING[padding], float(component.get("cval", 0.0)), "patch"),
        windows="monai",
    )


def _fitting(divisor: Shape3 | None, patch: Sequence[int | None]) -> tuple[int, ...]:
    """Return the largest common divisor of the patch's edges and the network's divisor, or a usual one."""
    largest = divisor or (_LARGEST_DIVISOR,) * 3
    return tuple(d if edge is None else math.gcd(edge, d) for d, edge in zip(largest, patch, strict=True))


def _plain(divisor: Sequence[int]) -> int | Shape3:
    x, y, z = divisor
    return x if x == y == z else (x, y, z)


def network_divisor(network: Mapping[str, Any], spatial_shape: object) -> Shape3 | None:
    """Return the divisor of a network's edges (x, y, z) from its strides, else from shapes such as ``8*n``."""
    target, whole = str(network.get("_target_", "")).rpartition(".")[2], None
    if target in ("UNet", "AttentionUnet"):
        whole = [network.get("strides", [])] * 3
    elif target in ("DynUNet",):
        strides = [s if isinstance(s, list) else [s] * 3 for s in network.get("strides", [])]
        whole = [[s[axis] for s in strides] for axis in range(3)]
    elif target.startswith("SegResNet"):
        whole = [[2] * (len(network.get("blocks_down", (1, 2, 2, 4))) - 1)] * 3
    elif target in ("BasicUNet", "VNet", "BasicUNetPlusPlus"):
        whole = [[16]] * 3
    elif target == "SwinUNETR":
        whole = [[32]] * 3
    if whole is not None and all(isinstance(s, int) for strides in whole for s in strides):
        x, y, z = (math.prod(strides) for strides in whole)
        return x, y, z
    if isinstance(spatial_shape, list) and len(spatial_shape) == 3:
        found = [re.fullmatch(r"\s*(\d+)\s*\*\s*n\s*", str(edge)) for edge in spatial_shape]
        if all(found):
            x, y, z = (int(match[1]) for match in found if match)
            return x, y, z
    return None

"""Performance targets, and whether the measurements of performance.py meet them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEAST_RATIO, LEAST_FP32_RATIO, LEAST_DICE = 3.0, 1.15, 0.999
LEAST_SHARE_OF_FLOOR, MOST_COLD_SECONDS = 0.6, 1.5
FLAT_PERCENT, LINEAR_PERCENT = 10, 10
FIRST_TILE = "to the first tile"  # without its inference, which other targets cover
NAMES = {"segresnet": "SegResNet-16", "bundled": "the bundled model"}


@dataclass(frozen=True)
class Bar:
    """A target and its result; ``met`` is None if it was not measured."""

    target: str
    found: str
    met: bool | None


def least_dice(entry: Mapping[str, Any]) -> float | None:
    """Return the smallest Dice of all labels against fp32; None without a mask."""
    return min(entry["dice"].values()) if entry.get("dice") else None


def holding(contenders: Mapping[str, Any], suffix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Return voxport's configurations whose Dice reaches the bound, fastest first."""
    ways = [
        (kind.partition(":")[2], entry)
        for kind, entry in contenders.items()
        if kind.startswith("voxport:") and kind.endswith(suffix) and (least_dice(entry) or 0) >= LEAST_DICE
    ]
    return sorted(ways, key=lambda way: float(way[1]["seconds"]))


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """Return all targets in order."""
    results: list[Bar] = []
    for network, name in NAMES.items():
        contenders = found.get("speed", {}).get(network, {}).get("contenders", {})
        results += _speed(name, contenders)
    return [*results, *_growth(found.get("growth")), _cold(found.get("startup")), *_install(found.get("install"))]


def _speed(name: str, contenders: Mapping[str, Any]) -> list[Bar]:
    target = (
        (f"{name}: {LEAST_RATIO:g} times as fast as MONAI, Dice of each label {LEAST_DICE}", "", LEAST_RATIO),
        (f"{name}: {LEAST_FP32_RATIO:g} times as fast with fp32 alone", "fp32", LEAST_FP32_RATIO),
    )
    results = []
    for what, suffix, least in target:
        ways = holding(contenders, suffix)
        if not ways:
            results.append(Bar(what, "nothing", False if contenders else None))
            continue
        way, entry = ways[0]
        text = f"{entry['ratio']:.2f} times, {way}, Dice {least_dice(entry):.5f}"
        results.append(Bar(what, text, entry["ratio"] >= least))
    what = f"{name}: {100 * LEAST_SHARE_OF_FLOOR:.0f} % of the speed of a bare loop over the same tiles"
    floored = [(way, entry) for way, entry in holding(contenders) if "share_of_floor" in entry]
    if not floored:
        return [*results, Bar(what, "nothing", False if contenders else None)]
    way, entry = floored[0]
    share = entry["share_of_floor"]
    return [
        *results,
        Bar(what, f"{100 * share:.0f} %, {way}, including reading and writing", share >= LEAST_SHARE_OF_FLOOR),
    ]


def _growth(growth: Mapping[str, Any] | None) -> list[Bar]:
    flat = f"peak memory constant within {FLAT_PERCENT} % at a fixed `--memory`"
    linear = f"time linear in voxels within {LINEAR_PERCENT} %"
    if growth is None:
        return [Bar(flat, "nothing", None), Bar(linear, "nothing", None)]
    away = f"{100 * growth['peak_spread']:.0f} % between smallest and largest"
    off = f"{100 * growth['largest_deviation']:.1f} % largest deviation"
    return [Bar(flat, away, growth["flat"]), Bar(linear, off, growth["linear"])]


def _cold(startup: Mapping[str, Any] | None) -> Bar:
    target = f"process start to first tile within {MOST_COLD_SECONDS} s, without torch"
    firsts = [seconds for name, seconds in startup_seconds(startup or {}).items() if FIRST_TILE in name.lower()]
    if not firsts:
        return Bar(target, "not measured", None)
    return Bar(target, f"{max(firsts):.2f} s", max(firsts) <= MOST_COLD_SECONDS)


def startup_seconds(startup: Mapping[str, Any]) -> dict[str, float]:
    """Return name and seconds of each measurement of startup.py: a number, or a mapping with ``seconds``."""
    results = {name: value.get("seconds") if isinstance(value, dict) else value for name, value in startup.items()}
    return {name: float(value) for name, value in results.items() if isinstance(value, int | float)}


def _install(installs: Mapping[str, Any] | None) -> list[Bar]:
    if installs is None:
        return [Bar("the serving installation under its bound, without torch", "not measured", None)]
    results = []
    for extras, install in installs.items():
        if install["bound_bytes"] is None:
            continue
        target = f"`voxport[{extras}]` under {install['bound_bytes'] / 1e6:.0f} MB, without torch"
        torch = "with torch" if install["torch"] else "no torch"
        met = install["total_bytes"] < install["bound_bytes"] and not install["torch"]
        results.append(Bar(target, f"{install['total_bytes'] / 1e6:.0f} MB, {torch}", met))
    return results

"""Plot docs/performance.svg from the measurements of performance.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from bars import NAMES
from page import who

_WIDTH, _BAR, _NAME, _PANEL = 900, 22, 190, 260
_VOXPORT, _OTHER, _LINE, _INK = "#0b6e99", "#b8b8b8", "#e4572e", "#333333"


def svg(found: Mapping[str, Any]) -> str:
    """Return the plot as SVG."""
    parts: list[str] = []
    top = 20.0
    for name, speed in found.get("speed", {}).items():
        ratios = [(kind, entry["ratio"]) for kind, entry in speed["contenders"].items() if "ratio" in entry]
        parts += _ratios(NAMES[name], ratios, top)
        top += 50 + _BAR * len(ratios)
    if "growth" in found:
        sizes, growth = found["growth"]["sizes"], found["growth"]
        millions = [size["voxels"] / 1e6 for size in sizes]
        half = _WIDTH / 2
        memory = [size["peak_bytes"] / 1e6 for size in sizes]
        seconds = [size["seconds"] for size in sizes]
        fitted = [growth["start_seconds"] + growth["seconds_a_megavoxel"] * x for x in millions]
        parts += _curve(f"Peak memory in MB, --memory {growth['memory']}", millions, memory, [], (0, top))
        parts += _curve("Seconds, and the line through them", millions, seconds, fitted, (half, top))
        top += _PANEL
    space, font = 'xmlns="http://www.w3.org/2000/svg"', 'font-family="sans-serif" font-size="13"'
    head = f'<svg {space} viewBox="0 0 {_WIDTH} {top:.0f}" {font}>'
    back = f'<rect width="{_WIDTH}" height="{top:.0f}" fill="white"/>'
    return "\n".join([head, back, *parts, "</svg>"]) + "\n"


def _ratios(name: str, ratios: Sequence[tuple[str, float]], top: float) -> list[str]:
    """Draw horizontal bars, with a dashed line at 1 for MONAI."""
    most = max(ratio for _, ratio in ratios)
    scale = (_WIDTH - _NAME - 80) / most
    parts = [_text(10, top, f"{name}: times as fast as MONAI", bold=True)]
    for number, (kind, ratio) in enumerate(ratios):
        y = top + 10 + _BAR * number
        colour = _VOXPORT if kind.startswith("voxport:") else _OTHER
        parts.append(_text(_NAME - 8, y + 15, who(kind), anchor="end"))
        parts.append(f'<rect x="{_NAME}" y="{y:.1f}" width="{ratio * scale:.1f}" height="{_BAR - 5}" fill="{colour}"/>')
        parts.append(_text(_NAME + ratio * scale + 6, y + 15, f"{ratio:.2f}"))
    end = top + 10 + _BAR * len(ratios)
    parts.append(_dashed((_NAME + scale, top + 8), (_NAME + scale, end)))
    return parts


def _curve(
    name: str, xs: Sequence[float], ys: Sequence[float], fitted: Sequence[float], origin: tuple[float, float]
) -> list[str]:
    """Draw points over millions of voxels from zero, with the fitted line dashed."""
    left, top = origin[0] + 60, origin[1] + 20
    width, height = _WIDTH / 2 - 90, _PANEL - 80
    across, up = width / (max(xs) * 1.05), height / (max(*ys, *fitted, 0) * 1.1)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * across, top + height - y * up

    parts = [_text(origin[0] + 10, origin[1], name, bold=True)]
    parts.append(f'<path d="M{left:.1f} {top:.1f}V{top + height:.1f}H{left + width:.1f}" stroke="{_INK}" fill="none"/>')
    for value in _steps(max(*ys, *fitted, 0) * 1.1):
        parts.append(_text(left - 6, at(0, value)[1] + 4, f"{value:g}", anchor="end"))
    for value in _steps(max(xs) * 1.05):
        parts.append(_text(at(value, 0)[0], top + height + 16, f"{value:g}", anchor="middle"))
    parts.append(_text(left + width / 2, top + height + 34, "millions of voxels", anchor="middle"))
    parts += [
        _dashed(at(x, y), at(other, next_y))
        for x, y, other, next_y in zip(xs, fitted, xs[1:], fitted[1:], strict=False)
    ]
    for x, y in zip(xs, ys, strict=True):
        parts.append(f'<circle cx="{at(x, y)[0]:.1f}" cy="{at(x, y)[1]:.1f}" r="4" fill="{_VOXPORT}"/>')
    return parts


def _steps(most: float) -> list[float]:
    """Return four to eight round numbers from zero to ``most``."""
    unit = 1.0
    while unit * 8 < most:
        unit *= 10
    while unit * 4 > most:
        unit /= 10
    step = next(unit * times for times in (1, 2, 5, 10) if most / (unit * times) <= 7)
    return [step * number for number in range(int(most / step) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}"{weight}>{escape(text)}</text>'


def _dashed(begin: tuple[float, float], end: tuple[float, float]) -> str:
    places = f'x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {places} stroke="{_LINE}" stroke-dasharray="4 3"/>'

"""Print the outcome of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import typer

from .console import show_json, show_table, warn

if TYPE_CHECKING:
    from ...domain.parity import Bounds, RuntimeParity


def parity_mapping(entry: RuntimeParity) -> dict[str, Any]:
    """Return a parity as plain data."""
    return {
        "runtime": entry.runtime,
        "precision": entry.precision,
        "label_agreement": entry.parity.label_agreement,
        "dice": list(entry.parity.dice),
        "max_probability_difference": entry.parity.max_probability_difference,
    }


def others_mapping(others: Sequence[RuntimeParity], bounds: Bounds) -> list[dict[str, Any]]:
    """Return other runtimes and precisions as plain data."""
    return [{**parity_mapping(entry), "holds": entry.holds(bounds)} for entry in others]


def show_others(others: Sequence[RuntimeParity], bounds: Bounds) -> None:
    """Print a line for each other runtime and precision."""
    for entry in others:
        verdict = "holds" if entry.holds(bounds) else "does not hold"
        typer.echo(
            f"  {entry.runtime} {entry.precision} {verdict}: label agreement {entry.parity.label_agreement:.6f}, "
            f"least Dice {min(entry.parity.dice):.6f}, largest difference {entry.parity.max_probability_difference:.2g}"
        )


def show_outcome(report: Mapping[str, Any], mask: str, as_json: bool) -> None:
    """Print warnings on stderr, and the labels' statistics on stdout as a table or JSON.

    Args:
        report: report of the run.
        mask: name of the mask as requested.
        as_json: print JSON.
    """
    warn(report["warnings"])
    statistics, grid = report["statistics"], report["grid"]
    if as_json:
        rest = {name: report[name] for name in ("seconds", "warnings", "command")}
        show_json({**statistics, "mask": mask, **rest})
        return
    from rich.markup import escape

    unit = "voxel units" if grid["unit"] == "unknown" else f"{grid['unit']}^3"
    total = prod(grid["shape"])
    rows = [
        (escape(s["name"]), s["voxels"], f"{100 * s['voxels'] / total:.2f} %", f"{s['volume']:.6g}", s["components"])
        for s in statistics["labels"]
    ]
    show_table(("label", "voxels", "of all", f"volume ({unit})", "pieces"), rows)
    runtime, tuned = report["runtime"], ", as tuned" if report.get("tuned") else ""
    typer.echo(
        f"{mask}: {report['tiles']['count']} tiles in {sum(report['seconds'].values()):.1f} s "
        f"with {runtime['name']} {runtime['precision']}{tuned}"
    )

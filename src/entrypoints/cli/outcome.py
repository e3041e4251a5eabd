"""What a run came to, for people and for programs; the same wherever it ran."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import typer

from .console import show_json, show_table, warn


def show_outcome(report: Mapping[str, Any], mask: str, as_json: bool) -> None:
    """Warnings on stderr; the labels' statistics on stdout, as a table or as JSON.

    Args:
        report: of the run.
        mask: the name it was asked for under.
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
    typer.echo(f"{mask}: {report['tiles']['count']} tiles in {sum(report['seconds'].values()):.1f} s")

"""``voxport plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ...domain.run import RunOptions
from . import options as opt
from .console import progress_bar, show_json, warn

if TYPE_CHECKING:
    from ...services.models.loading import LoadedModel
    from ...services.segmentation.estimate import Estimate


@opt.takes_run_options()
def plan_command(
    inputs: opt.Inputs,
    model: opt.ModelName = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    *,
    options: RunOptions,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Estimate tiles, peak memory and time of a run, with warnings; nothing is segmented."""
    from ...application import Application

    application = Application.build()
    chosen = application.find_model(model, card)
    with progress_bar(quiet) as progress:
        opened = application.load_model(chosen, runtime=runtime, precision=precision, threads=threads)
        found = application.estimate(inputs, opened, options, progress)
    if as_json:
        show_json(_mapping(opened, found))
    elif not quiet:
        _show(opened, found)


def _mapping(opened: LoadedModel, found: Estimate) -> dict[str, Any]:
    from ...domain.report import grid_mapping
    from ...services.segmentation.report import tiles_mapping

    runtime, space = opened.runtime, found.prepared.space
    return {
        "model": opened.model.card.reference,
        "runtime": {"name": runtime.name, "precision": runtime.precision, "device": runtime.device},
        "grid": grid_mapping(space.stored),
        "model_grid": grid_mapping(space.grid),
        "tiles": tiles_mapping(found.prepared),
        "seconds": found.seconds,
        "seconds_per_tile": found.seconds_per_tile,
        "peak_bytes": found.peak_bytes,
        "warnings": list(found.warnings),
    }


def _show(opened: LoadedModel, found: Estimate) -> None:
    from ...services.segmentation.case import describe_grid
    from ...services.segmentation.prepare import size

    plan, space, runtime = found.prepared.plan, found.prepared.space, opened.runtime
    warn(found.warnings)
    typer.echo(f"input    {describe_grid(space.stored)}")
    network = f"{opened.model.card.reference} on {runtime.name} {runtime.precision}"
    typer.echo(f"model    {network}, {describe_grid(space.grid)}")
    tile = "x".join(map(str, plan.tile))
    typer.echo(f"tiles    {plan.tile_count} of {tile}, {plan.blending} blending, {found.seconds_per_tile:.3f} s each")
    typer.echo(f"time     about {found.seconds:.1f} s")
    typer.echo(f"memory   about {size(found.peak_bytes)} at the peak")

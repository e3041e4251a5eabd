"""``voxport segment`` and ``voxport plan``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from ...domain.volume_names import ALL_NAMES, PACKED
from . import options as opt
from .console import build_application, logged_from, progress_bar, show_json, show_table, warn
from .measuring import measure_as_asked

if TYPE_CHECKING:
    from ...ports.segmenter import Segmenter
    from ...services.cluster.plan import BlockPlan
    from ...services.models.loading import LoadedModel
    from ...services.segmentation.estimate import Estimate

VOLUMES = typer.Argument(
    metavar="INPUT...", help="A volume of any format; several are the channels of one case.", show_default=False
)
_MOST_SPOTS = 3  # printed; the statistics have more
Sample = Annotated[bool, typer.Option("--sample", help="Segment the bundled sample into the current folder.")]
MaskFile = Annotated[
    str | None, typer.Option("-o", "--output", metavar="MASK", help=f"The mask: {ALL_NAMES.writable_text}.")
]
Probabilities = Annotated[
    str | None,
    typer.Option(
        "--probabilities", metavar="FILE", help="Write class probabilities, a channel each; endings as of -o."
    ),
]
Uncertainty = Annotated[
    str | None,
    typer.Option(
        "--uncertainty",
        metavar="FILE",
        help="Write entropy, margin and disagreement of patches in per cent, and where to look.",
    ),
]
Statistics = Annotated[
    str | None, typer.Option("--statistics", metavar="FILE", help="Write statistics per label, .json or .csv.")
]
Preview = Annotated[str | None, typer.Option("--preview", metavar="FILE.png", help="Write a picture of the result.")]
LabelFile = Annotated[
    str | None,
    typer.Option("--label-table", metavar="FILE", help="Write the labels, .tsv (BIDS), .txt or .label (ITK-SNAP)."),
]
Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE.html", help="Write a page on the result, one file for a browser.")
]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE.json", help="Write the provenance of the run.")]


@opt.takes_run_options()
def segment_command(
    inputs: Annotated[list[str] | None, VOLUMES] = None,
    output: MaskFile = None,
    sample: Sample = False,
    model: opt.ModelName = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    *,
    options: RunOptions,
    probabilities: Probabilities = None,
    uncertainty: Uncertainty = None,
    statistics: Statistics = None,
    preview: Preview = None,
    label_table: LabelFile = None,
    report: Report = None,
    html: Html = None,
    server: opt.Server = None,
    cluster: opt.Cluster = None,
    block: opt.BlockEdge = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Segment one case; the mask is on the input's own grid."""
    from ...domain.run import Outputs
    from ...services.segmentation.report import same_again_there

    application = build_application(cluster=opt.cluster_settings(cluster, block, server))
    inputs, output = _case(inputs, output, application.sample if sample else None)
    if sample:
        statistics, preview = statistics or "sample_statistics.json", preview or "sample_preview.png"
    outputs = Outputs(output, probabilities, statistics, preview, report, label_table, uncertainty, html)
    here: dict[str, Any] = {"card": card, "runtime": runtime, "precision": precision, "threads": threads}
    if server is not None:
        opt.check_remote_options(model, here | {"memory": options.memory_bytes, "batch": options.batch})
    application.check_outputs(inputs, outputs, kept=[] if card is None else [card])
    chosen: AbstractContextManager[Segmenter]
    if server is None:
        chosen = application.loaded_segmenter(model, **here)
    else:
        chosen = nullcontext(application.remote_segmenter(server, as_jobs=False))
    told = nullcontext() if quiet else logged_from(logging.INFO, "voxport.cluster", said=True)
    with told, progress_bar(quiet) as progress, chosen as segmenter:
        data = dict(segmenter.segment(inputs, model, outputs, options, progress))
    if segmenter.url is not None:
        data["command"] = same_again_there(segmenter.url, inputs, output, data, options)
        application.write_case_page(inputs, outputs, data, options.reading)
    measured = measure_as_asked(application, data, output, quiet=quiet)
    application.write_report(outputs, data)
    if not quiet:
        warn(data["warnings"])
    if as_json or not quiet:
        show_outcome(data, output, as_json)
        if measured is not None and not as_json:
            typer.echo(f"tubes are measured in {measured}")
    if sample and not as_json and not quiet:
        _what_next(statistics, preview, segmenter.url)


def _case(inputs: list[str] | None, output: str | None, sample: str | None) -> tuple[list[str], str]:
    """Return the volumes and the name of the mask. Raises UsageError."""
    if sample is not None and inputs:
        raise UsageError("--sample", expected="no INPUT beside it", got=inputs[0], do="leave one of them out")
    if sample is not None:
        return [sample], output or f"sample_mask{PACKED}"
    if not inputs or output is None:
        missing = "-o MASK" if inputs else "INPUT"
        do = "see voxport segment --help"
        raise UsageError("voxport segment", expected="INPUT -o MASK", got=f"no {missing}", do=do)
    return inputs, output


def _what_next(statistics: str | None, preview: str | None, server: str | None) -> None:
    own = f"  voxport segment YOUR{PACKED} -o mask{PACKED} --preview mask.png"
    typer.echo(f"Look at {preview}, and at {statistics} for the numbers. Next:")
    if server is not None:
        typer.echo(f"{own} --server {server}")
        return
    typer.echo(
        f"{own}   your own volume, with the bundled model\n"
        "  voxport inspect two-photon-vessels                              what this model is for, and where it fails\n"
        "  voxport export CHECKPOINT --card card.yaml -o model.onnx        your own network"
    )


def show_outcome(report: Mapping[str, Any], mask: str, as_json: bool) -> None:
    """Print the labels' statistics of a run's report as a table or JSON; ``mask`` is the name as requested."""
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
    for spot in statistics.get("uncertainty", {}).get("places", ())[:_MOST_SPOTS]:
        typer.echo(f"look at voxel {','.join(map(str, spot['voxel']))}: {spot['why']}")
    runtime, tuned = report["runtime"], ", as tuned" if report.get("tuned") else ""
    typer.echo(
        f"{mask}: {report['tiles']['count']} tiles in {sum(report['seconds'].values()):.1f} s "
        f"with {runtime['name']} {runtime['precision']}{tuned}"
    )


@opt.takes_run_options()
def plan_command(
    inputs: Annotated[list[str], VOLUMES],
    model: opt.ModelName = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    *,
    options: RunOptions,
    cluster: opt.Cluster = None,
    block: opt.BlockEdge = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Estimate tiles, peak memory and time of a run, with warnings; nothing is segmented."""
    application = build_application(cluster=opt.cluster_settings(cluster, block))
    chosen = application.find_model(model, card)
    with progress_bar(quiet) as progress:
        opened = application.load_model(chosen, runtime=runtime, precision=precision, threads=threads)
        in_blocks = application.plan_blocks(inputs, opened, options, progress)
        found = None if in_blocks is not None else application.estimate(inputs, opened, options, progress)
    if found is None:
        _show_blocks(in_blocks, as_json=as_json, quiet=quiet)
    elif as_json:
        show_json(_estimate(opened, found))
    elif not quiet:
        _show_estimate(opened, found)


def _show_blocks(found: BlockPlan | None, *, as_json: bool, quiet: bool) -> None:
    from ...services.segmentation.preparation.planning import size
    from ...services.segmentation.report import tiles_mapping

    assert found is not None
    numbers = {name: value for name, value in vars(found).items() if name != "prepared"}
    if as_json:
        show_json(
            {"tiles": tiles_mapping(found.prepared), "blocks": numbers, "warnings": list(found.prepared.warnings)}
        )
        return
    if quiet:
        return
    warn(found.prepared.warnings)
    typer.echo(f"blocks   {found.blocks}, {found.tiles} tiles in all, {found.seconds_per_tile:.3f} s each")
    typer.echo(f"reads    {size(found.read_bytes)} of the volume")
    moved = f"{size(found.sums_bytes)} from block to block, {size(found.pieces_bytes)} to the mask"
    typer.echo(f"moves    {moved}, uncompressed")
    typer.echo(f"memory   about {size(found.worker_bytes)} a worker")
    hours = f"{found.seconds / 3600:.2g} hours" if found.seconds > 3600 else f"{found.seconds:.1f} s"
    typer.echo(f"time     about {hours} with {found.workers} worker(s), {found.serial_seconds:.1f} s of it here")


def _estimate(opened: LoadedModel, found: Estimate) -> dict[str, Any]:
    from ...domain.report import grid_mapping
    from ...services.segmentation.report import tiles_mapping

    runtime, space = opened.runtime, found.prepared.space
    return {
        "model": opened.model.card.reference,
        "runtime": {"name": runtime.name, "precision": runtime.precision, "device": runtime.device},
        "grid": grid_mapping(found.prepared.case.grid),
        "model_grid": grid_mapping(space.grid),
        "tiles": tiles_mapping(found.prepared),
        "seconds": found.seconds,
        "seconds_per_tile": found.seconds_per_tile,
        "peak_bytes": found.peak_bytes,
        "warnings": list(found.warnings),
    }


def _show_estimate(opened: LoadedModel, found: Estimate) -> None:
    from ...services.segmentation.case import describe_grid
    from ...services.segmentation.preparation.planning import size

    plan, space, runtime = found.prepared.plan, found.prepared.space, opened.runtime
    warn(found.warnings)
    typer.echo(f"input    {describe_grid(found.prepared.case.grid)}")
    network = f"{opened.model.card.reference} on {runtime.name} {runtime.precision}"
    typer.echo(f"model    {network}, {describe_grid(space.grid)}")
    tile = "x".join(map(str, plan.tile))
    images = opened.model.card.tiling.images
    mirrored = f" with their {images} mirror images" if images > 1 else ""
    typer.echo(
        f"tiles    {plan.tile_count} of {tile}{mirrored}, {plan.blending} blending, {found.seconds_per_tile:.3f} s each"
    )
    typer.echo(f"time     about {found.seconds:.1f} s")
    typer.echo(f"memory   about {size(found.peak_bytes)} at the peak")

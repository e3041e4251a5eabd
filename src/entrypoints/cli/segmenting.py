"""``voxport segment``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from ...domain.volume_names import NIFTI, PACKED, VolumeNames
from . import options as opt
from .console import progress_bar
from .outcome import show_outcome

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="NIfTI volume; several are the channels of one case.", show_default=False),
]
Sample = Annotated[bool, typer.Option("--sample", help="Segment the bundled sample into the current folder.")]
MaskFile = Annotated[
    str | None, typer.Option("-o", "--output", metavar="MASK", help=f"The mask: {VolumeNames((NIFTI,)).writable_text}.")
]
Probabilities = Annotated[
    str | None, typer.Option("--probabilities", metavar="FILE", help="Write class probabilities as 4-D NIfTI.")
]
Statistics = Annotated[
    str | None, typer.Option("--statistics", metavar="FILE", help="Write statistics per label, .json or .csv.")
]
Preview = Annotated[str | None, typer.Option("--preview", metavar="FILE.png", help="Write a picture of the result.")]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE.json", help="Write the provenance of the run.")]


@opt.takes_run_options()
def segment_command(
    inputs: Inputs = None,
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
    statistics: Statistics = None,
    preview: Preview = None,
    report: Report = None,
    server: opt.Server = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Segment one case; the mask is on the input's own grid."""
    from ...application import Application
    from ...domain.run import Outputs
    from ...services.segmentation.report import same_again_there

    application = Application.build()
    inputs, output = _case(inputs, output, application.sample if sample else None)
    if sample:
        statistics, preview = statistics or "sample_statistics.json", preview or "sample_preview.png"
    outputs = Outputs(output, probabilities, statistics, preview, report)
    if server is not None:
        here = {"card": card, "runtime": runtime, "precision": precision, "threads": threads}
        opt.check_remote_options(model, here | {"memory": options.memory_bytes, "batch": options.batch})
        application.check_outputs(inputs, outputs)
        segmenter = application.remote_segmenter(server, as_jobs=False)
        with progress_bar(quiet) as progress:
            data = dict(segmenter.segment(inputs, model, outputs, options, progress))
        data["command"] = same_again_there(str(segmenter.url), inputs, output, data, options)
        application.write_report(outputs, data)
    else:
        how: dict[str, Any] = {"card": card, "runtime": runtime, "precision": precision, "threads": threads}
        with progress_bar(quiet) as progress:
            _, data = application.segment_files(inputs, model, outputs, options, progress, **how)
    if not quiet:
        show_outcome(data, output, as_json)
        if sample and not as_json:
            _what_next(statistics, preview, None if server is None else str(segmenter.url))


def _case(inputs: list[str] | None, output: str | None, sample: str | None) -> tuple[list[str], str]:
    """Return volumes and mask name. UsageError if one is missing, or for a volume beside the sample."""
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

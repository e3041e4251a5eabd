"""``voxport calibrate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from . import options as opt
from .console import build_application, progress_bar, show_json


@opt.takes_reading_options
def calibrate_command(
    model: Annotated[
        str | None, typer.Argument(help="A model file, or the name of a model.", show_default="two-photon-vessels")
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            metavar="FOLDER",
            help="NAME_image and NAME_label in this folder; twice: the images of one folder and the labels of another.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="MODEL.onnx", help="Write the model with the temperature in its card."),
    ] = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    *,
    options: RunOptions,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fit the temperature of a model's probabilities to true labels; masks stay as they are."""
    if not truth or len(truth) > 2:
        raise UsageError("--truth", expected="one folder or two", got=str(len(truth or ())), do="name the true labels")
    application = build_application()
    found = application.find_model(model, card)
    with progress_bar(quiet) as progress:
        loaded = application.load_model(found, runtime=runtime, precision=precision, threads=threads)
        fitted = application.calibrate(loaded, truth, progress, options, destination=output)
    if as_json:
        show_json({"model": found.card.reference, **asdict(fitted)})
    elif not quiet:
        held_out = "" if fitted.ece_held_out is None else f", {fitted.ece_held_out:.4f} on cases left out of the fit"
        typer.echo(
            f"{found.card.reference}: temperature {fitted.temperature:.3f} from {fitted.cases} cases; expected "
            f"calibration error {fitted.ece_before:.4f} without, {fitted.ece_after:.4f} with it{held_out}"
        )

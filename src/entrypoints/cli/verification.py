"""``voxport verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress_bar, show_json
from .outcome import others_mapping, parity_mapping, show_others


def verify_command(
    model: Annotated[str, typer.Argument(help="A model file, or the name of a model.")],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="CHECKPOINT",
            help="Compare with this checkpoint, and write the certificate into the model.",
        ),
    ] = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare a model with its source network, on this machine."""
    from ...application import Application

    application = Application.build()
    found = application.find_model(model, card)
    with progress_bar(quiet) as progress:
        loaded = application.load_model(found, runtime=runtime, precision=precision, threads=threads)
        proved = application.verify(loaded, against, progress)
    entry, bounds = proved.entry, application.bounds
    if as_json:
        show_json(
            {
                "model": found.card.reference,
                **parity_mapping(entry),
                "against": proved.against,
                "others": others_mapping(proved.others, bounds),
            }
        )
    elif not quiet:
        typer.echo(
            f"{found.card.reference} holds: {entry.runtime} {entry.precision} differs from {proved.against} "
            f"by at most {entry.parity.max_probability_difference:.2g}"
        )
        show_others(proved.others, bounds)

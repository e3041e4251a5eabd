"""``voxport verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress_bar, show_json


def verify_command(
    model: Annotated[str, typer.Argument(help="A model file, or the name of an added model.")],
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="CHECKPOINT", help="Prove it against this, and write the certificate."),
    ] = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Prove again, on this machine, that a model scores like its source network."""
    from ...container import wired
    from ...services.models import find_model
    from ...services.runtimes import choose_runtime, open_runtime
    from ...services.verify import verify_again, verify_model

    container = wired()
    files = container.model_files()
    found = find_model(model, card, files, container.models())
    openers = container.runtimes()
    loaded = open_runtime(found, openers, choose_runtime(found, openers, runtime, precision), threads)
    with progress_bar(quiet) as progress:
        if against is None:
            proved = verify_again(found, loaded, progress)
        else:
            proved = verify_model(found, loaded, against, openers["torch"], files, progress)
    entry = proved.entry
    if as_json:
        show_json(
            {
                "model": found.card.reference,
                "runtime": entry.runtime,
                "precision": entry.precision,
                "against": proved.against,
                "label_agreement": entry.parity.label_agreement,
                "dice": list(entry.parity.dice),
                "max_probability_difference": entry.parity.max_probability_difference,
            }
        )
    elif not quiet:
        typer.echo(
            f"{found.card.reference} holds: {entry.runtime} {entry.precision} differs from {proved.against} "
            f"by at most {entry.parity.max_probability_difference:.2g}"
        )

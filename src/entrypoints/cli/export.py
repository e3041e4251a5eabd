"""``voxport export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress_bar, show_json, warn
from .outcome import others_mapping, parity_mapping, show_others

CardOption = Annotated[Path, typer.Option("--card", help="Model card (YAML).")]


def export_command(
    checkpoint: Annotated[Path | None, typer.Argument(help="A state dict or a TorchScript file.")] = None,
    *,
    card: CardOption,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL.onnx", help="The model file to write.")],
    network: Annotated[
        str | None, typer.Option("--network", help="Class of the network: one of MONAI's, or package.module.Class.")
    ] = None,
    network_args: Annotated[
        str | None, typer.Option("--network-args", metavar="JSON", help="Its arguments, e.g. '{\"init_filters\": 8}'.")
    ] = None,
    network_output: Annotated[
        str | None,
        typer.Option("--network-output", metavar="NAME|INDEX", help="The output with the logits, of several."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", metavar="DIR", help="A MONAI bundle.")] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Export a checkpoint to one self-describing ONNX file, certified to agree with the checkpoint."""
    from ...application import Application
    from ...services.models.checkpoints import describe_checkpoint

    if network is not None:
        sys.path.append(str(Path.cwd()))  # as `python` does; last, so that nothing installed is hidden
    application = Application.build()
    read = application.read_card(card)
    given = describe_checkpoint(checkpoint, network, network_args, bundle, application.read_bundle, network_output)
    with progress_bar(quiet) as progress:
        done = application.export(given, read, output, progress)
    warn(done.notes)
    proved, bounds = done.verification, application.bounds
    parity = proved.entry.parity
    if as_json:
        show_json(
            {
                "model": str(output),
                "sha256": done.model.sha256,
                "dynamic": done.dynamic,
                **parity_mapping(proved.entry),
                "others": others_mapping(proved.others, bounds),
            }
        )
    elif not quiet:
        sizes = "any size" if done.dynamic else "the card's patch only"
        typer.echo(
            f"{output}: {done.model.card.reference}, takes {sizes}; label agreement {parity.label_agreement:.6f}, "
            f"largest difference {parity.max_probability_difference:.2g} over {len(proved.probes)} inputs"
        )
        show_others(proved.others, bounds)

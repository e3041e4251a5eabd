"""``voxport inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .console import show_json, warn

if TYPE_CHECKING:
    from ...ports.model import Model
    from ...ports.volume_store import VolumeSource


def inspect_command(
    file: Annotated[str, typer.Argument(help="A volume, a model file, or the name of a model.")],
    card: opt.CardFile = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show a volume's geometry, or a model's card and certificate."""
    from ...application import Application
    from ...services.models.find import names_a_model

    application = Application.build()
    if names_a_model(file):
        _show_model(application.find_model(file, card), as_json)
        return
    with application.volumes.open(file) as source:
        _show_volume(Path(file).name, source, as_json)


def _show_volume(name: str, source: VolumeSource, as_json: bool) -> None:
    from ...domain.report import grid_mapping
    from ...services.segmentation.case import describe_grid

    grid = source.grid
    if as_json:
        data: dict[str, Any] = {"name": name, **grid_mapping(grid)}
        data |= {"channels": source.channels, "dtype": str(source.dtype), "sheared": grid.is_sheared}
        show_json(data | {"notes": list(source.notes)})
        return
    typer.echo(f"{name}: {describe_grid(grid)}")
    typer.echo(f"channels  {source.channels} of {source.dtype}")
    typer.echo(f"affine    {'sheared, ' if grid.is_sheared else ''}voxel to RAS+ world")
    for row in grid.affine[:3]:
        typer.echo("          " + "  ".join(f"{value:12.6g}" for value in row))
    warn(source.notes)


def _show_model(model: Model, as_json: bool) -> None:
    import yaml

    from ...domain.cards.writing import write_card

    data = write_card(model.card)
    if as_json:
        show_json({"sha256": model.sha256, "weights_sha256": model.weights_sha256, "card": data})
        return
    certificate = data.pop("parity")
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())
    typer.echo(f"sha256: {model.sha256}\nweights_sha256: {model.weights_sha256}")
    if certificate is None:
        typer.echo("certificate: none")
        return
    typer.echo(f"certificate: {certificate['date']}, {len(certificate['probes'])} probes")
    for entry in certificate["runtimes"]:
        typer.echo(
            f"  {entry['runtime']} {entry['precision']} ({entry['version']}): label agreement "
            f"{entry['label_agreement']:.6f}, largest difference {entry['max_probability_difference']:.2g}"
        )

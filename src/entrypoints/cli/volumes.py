"""``voxport convert``, and what ``voxport inspect`` shows of a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.reading import Reading
from ...domain.volume_names import ALL_NAMES
from . import options as opt
from .console import build_application, progress_bar, show_json, warn

if TYPE_CHECKING:
    from ...ports.volume_store import VolumeSource


@opt.takes_reading
def convert_command(
    volume: Annotated[str, typer.Argument(metavar="INPUT", help="A volume of any format.", show_default=False)],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help=f"The copy: {ALL_NAMES.writable_text}.")
    ],
    *,
    reading: Reading,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Copy a volume into another format: the same grid, values and channel names."""
    from ...services.segmentation.case import describe_grid

    application = build_application()
    with progress_bar(quiet) as progress:
        done = application.convert(volume, output, reading, progress)
    if not quiet:
        warn(done.warnings)
    if as_json:
        written = {"output": output, "sha256": done.sha256, **_voxels(done.channels, done.dtype)}
        show_json(written | {"warnings": list(done.warnings)})
    elif not quiet:
        typer.echo(f"{output}: {describe_grid(done.grid)}, {done.channels} of {done.dtype}")


def show_volume(name: str, form: str, source: VolumeSource, as_json: bool) -> None:
    """Print the format and geometry of a volume, where its voxel sizes come from, and how it is stored."""
    from ...domain.report import grid_mapping
    from ...services.segmentation.case import describe_grid

    grid, names = source.grid, source.channel_names
    if as_json:
        data = {"name": name, "format": form, **grid_mapping(grid), **_voxels(source.channels, source.dtype)}
        data |= {"channel_names": list(names), "chunk": list(source.chunk), "sheared": grid.is_sheared}
        show_json(data | {"spacing_sources": list(source.spacing_sources), "notes": list(source.notes)})
        return
    typer.echo(f"{name}: {describe_grid(grid)}")
    typer.echo(f"format    {form or 'unknown'}")
    typer.echo(f"channels  {source.channels} of {source.dtype}{': ' if names else ''}{', '.join(names)}")
    unit = "" if grid.unit == "unknown" else f" {grid.unit}"
    sizes = zip("xyz", grid.spacing, source.spacing_sources, strict=True)
    typer.echo(f"spacing   {', '.join(f'{axis} {size:.6g}{unit} ({where})' for axis, size, where in sizes)}")
    typer.echo(f"chunk     {'x'.join(map(str, source.chunk))}")
    typer.echo(f"affine    {'sheared, ' if grid.is_sheared else ''}voxel to RAS+ world")
    for row in grid.affine[:3]:
        typer.echo("          " + "  ".join(f"{value:12.6g}" for value in row))
    warn(source.notes)


def _voxels(channels: int, dtype: object) -> dict[str, Any]:
    return {"channels": channels, "dtype": str(dtype)}

"""``voxport measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import CancelledError, VoxportError
from ...domain.reading import Reading
from . import options as opt
from .console import build_application, progress_bar, show_json, show_table

if TYPE_CHECKING:
    from ...application import Application
    from ...services.measurement.tubular import TubeReport


@opt.takes_reading
def measure_command(
    mask: Annotated[str, typer.Argument(metavar="MASK", help="A label map.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to write, new or to replace.")
    ],
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Name the labels as this model does.", show_default="by number")
    ] = None,
    *,
    reading: Reading,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure the tubes of a mask, such as vessels: lengths, radii, branches and tortuosity, as CSV and SWC."""
    application = build_application()
    table = None if model is None else application.find_model(model).card.output.table
    names = [] if table is None else [(label.value, label.name) for label in table.labels]
    with progress_bar(quiet) as progress:
        report = application.measure_tubes(mask, output, progress, names=names, reading=reading)
    if as_json or not quiet:
        show_tubes(report, as_json=as_json)


def measure_as_asked(application: Application, report: dict[str, Any], mask: str, *, quiet: bool) -> Path | None:
    """Measure a mask as the card in its report asks; return the folder, which is beside it, or None.

    A mask that cannot be measured is a warning in the report.
    """
    if report["model"]["card"].get("measure") != "tubular":
        return None
    folder = Path(mask).with_name(f"{application.volumes.names.stem(Path(mask).name)}.tubes")
    names = [(label["value"], label["name"]) for label in report["model"]["card"]["output"]["labels"]]
    try:
        with progress_bar(quiet) as progress:
            application.measure_tubes(mask, folder, progress, names=names)
    except CancelledError:
        raise
    except VoxportError as error:
        report["warnings"] = [*report["warnings"], f"tubes are not measured: {error}"]
        return None
    return folder


def show_tubes(report: TubeReport, *, as_json: bool) -> None:
    """Print the measures of each label as a table or JSON."""
    from rich.markup import escape

    from ...domain.tubes.files import label_rows

    rows = label_rows(report.measures, report.grid.unit)
    if as_json:
        show_json({"unit": report.grid.unit, "labels": rows})
        return
    names = ("segments", "branch_points", "ends", "loops", "length", "length_density", "mean_radius", "mean_tortuosity")
    columns = ("label", *(name.replace("_", " ") for name in names))
    show_table(columns, ((escape(row["name"]), *(_number(row[name]) for name in names)) for row in rows))
    typer.echo(f"Lengths and radii in {report.grid.unit}.")


def _number(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

"""``voxport report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import build_application, progress_bar, show_json, warn, with_flags


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Results of segment and batch, with their reports.")],
    volumes: Annotated[
        Path | None,
        typer.Option("--volumes", metavar="FOLDER", help="Where the volumes lie.", show_default="where they were"),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a page on each case of a folder, and one on all of them; the network does not run."""
    application = build_application()
    with progress_bar(quiet) as progress:
        made = application.write_pages(folder, progress, volumes=volumes)
    if not quiet:
        warn(map(with_flags, made.notes))
    if as_json:
        show_json({"cohort": str(made.cohort), "cases": made.cases, "notes": list(made.notes)})
    elif not quiet:
        typer.echo(f"{made.cohort}: {made.cases} cases")

"""``voxport compare``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from . import options as opt
from .console import build_application, progress_bar, show_json, show_table, warn

if TYPE_CHECKING:
    from ...services.comparison.compare import Comparison


def compare_command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MASK TRUTH",
            help="A label map and the true one, or two folders of the same names. With --models: models.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Name the labels as this model does.", show_default="by number")
    ] = None,
    as_one: Annotated[bool, typer.Option("--foreground", help="Take all that is not zero for one label.")] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Take a mask on another grid: the nearest voxels of it.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0,
            help="Of the surface Dice, in the grid's unit.",
            show_default="the longest edge of a voxel",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row for each case and label.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE.html", help="Write a page with slices of what differs.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="VOLUME", help="Shown below in the page; a folder for folders.", show_default="black"
        ),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Rank models instead, by their masks of the cases in --truth.")
    ] = False,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            metavar="FOLDER",
            help="NAME_image and NAME_label, for --models; twice: a folder of images and one of labels.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare masks with the truth, label by label: overlap, surfaces, centre lines and components."""
    from .ranking import check_pair, rank_command

    if image is not None and html is None:
        do = "add it, or leave --image out"
        raise UsageError("--image", expected="--html beside it", got="none", do=do)
    if models or truth:
        rank_command(names, truth or [], table, ranks=models, as_json=as_json, quiet=quiet)
        return
    masks, truths = check_pair(names)
    application = build_application()
    labels = None if model is None else application.find_model(model).card.output.table
    pairs = application.pairs_to_compare(masks, truths)
    if table is not None:
        application.artifacts.check(str(table))
    if html is not None:
        application.artifacts.check(str(html))
    images = (
        [None] * len(pairs) if image is None else [place for _, place, _ in application.pairs_to_compare(image, truths)]
    )
    found = {}
    with progress_bar(quiet) as progress:
        for (name, mask, true), below in zip(pairs, images, strict=True):
            found[name] = application.compare(
                mask,
                true,
                progress,
                tolerance=tolerance,
                resample=resample,
                as_one=as_one,
                labels=labels,
                drawn_cases=len(pairs) if html is not None else 0,
                image=below,
            )
    if table is not None:
        application.artifacts.write(str(table), _csv(found).encode())
    if html is not None:
        application.write_comparison_page(str(html), found)
    if not quiet:
        warn(dict.fromkeys(note for comparison in found.values() for note in comparison.notes))
    if as_json:
        show_json({"cases": [_mapping(name, comparison) for name, comparison in found.items()], "means": _means(found)})
    elif not quiet:
        _show(found)


def _csv(found: Mapping[str, Comparison]) -> str:
    """Return a row for each case and label; an empty cell is a measure that is undefined."""
    text = io.StringIO()
    rows = [
        {"case": name, "unit": comparison.unit, **asdict(label)}
        for name, comparison in found.items()
        for label in comparison.labels
    ]
    writer = csv.DictWriter(text, rows[0] if rows else ["case"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _mapping(name: str, comparison: Comparison) -> dict[str, Any]:
    labels = [asdict(label) for label in comparison.labels]
    stated = {"name": name, "unit": comparison.unit, "tolerance": comparison.tolerance, "notes": comparison.notes}
    return {**stated, "labels": labels}


def _means(found: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """Return, for each label, its number of cases and the mean of each measure over those where it is defined."""
    from ...domain.labels.comparison import MEASURES

    means = []
    for value, name in sorted({(label.value, label.name) for c in found.values() for label in c.labels}):
        mine = [asdict(label) for c in found.values() for label in c.labels if label.value == value]
        row: dict[str, Any] = {"value": value, "name": name, "cases": len(mine)}
        for measure in MEASURES:
            stated = [label[measure] for label in mine if label[measure] is not None]
            row[measure] = math.fsum(stated) / len(stated) if stated else None
        means.append(row)
    return means


def _show(found: Mapping[str, Comparison]) -> None:
    columns = (
        "case",
        "label",
        "Dice",
        "IoU",
        "clDice",
        "surface Dice",
        "HD95",
        "mean distance",
        "volume",
        "precision",
        "recall",
    )
    show_table(columns, _rows(found))
    units = sorted({comparison.unit for comparison in found.values()})
    limits = sorted({f"{comparison.tolerance:.4g}" for comparison in found.values()})
    typer.echo(
        f"Distances in {', '.join(units)}; surface Dice within {', '.join(limits)}; volume: mask less truth, in the "
        "cubed unit; precision and recall: of components, which are found where they touch."
    )


def _rows(found: Mapping[str, Comparison]) -> Iterator[tuple[object, ...]]:
    from ...domain.labels.comparison import MEASURES

    for name, comparison in found.items():
        for label in comparison.labels:
            yield (name, label.name, *(_number(getattr(label, measure)) for measure in MEASURES))
    if len(found) > 1:
        for row in _means(found):
            yield (f"mean of {row['cases']}", row["name"], *(_number(row[measure]) for measure in MEASURES))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

"""``voxport compare --models``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from .console import build_application, progress_bar, show_json, show_table, warn

if TYPE_CHECKING:
    from ...services.comparison.ranking import RankedModel

_COLUMNS = ("", "model", "runtime", "cases", "Dice", "clDice", "surface Dice", "HD95", "precision", "recall", "seconds")
_SHOWN = ("dice", "cl_dice", "surface_dice", "hausdorff_95", "component_precision", "component_recall")


def check_pair(names: Sequence[str]) -> tuple[Path, Path]:
    """Return a mask and a truth. Raises UsageError for any other number of names."""
    if len(names) != 2:
        do = "see voxport compare --help"
        raise UsageError("voxport compare", expected="MASK TRUTH", got=f"{len(names)} names", do=do)
    return Path(names[0]), Path(names[1])


def rank_command(
    names: Sequence[str], truth: Sequence[Path], table: Path | None, *, ranks: bool, as_json: bool, quiet: bool
) -> None:
    """Segment labelled cases with each model, and show the models, that of the highest mean Dice first."""
    from ...domain.labels.statistics_file import table_bytes

    if not ranks:
        raise UsageError("--truth", expected="--models beside it", got="none", do="name the models: --models A B")
    if not 1 <= len(truth) <= 2:
        got, do = f"{len(truth)} folders", "name a folder of NAME_image and NAME_label, or two"
        raise UsageError("--truth", expected="one folder or two", got=got, do=do)
    application = build_application()
    models = [application.find_model(name) for name in names]
    if table is not None:
        application.artifacts.check(str(table))
    with progress_bar(quiet) as progress:
        ranked = application.rank_models(models, truth, progress, RunOptions())
    if table is not None:
        application.artifacts.write(str(table), table_bytes(_rows(ranked), "model"))
    if not quiet:
        warn(dict.fromkeys(note for found in ranked for _, comparison in found.cases for note in comparison.notes))
    if as_json:
        show_json({"models": [_mapping(found) for found in ranked]})
    elif not quiet:
        show_table(_COLUMNS, (_line(place, found) for place, found in enumerate(ranked, 1)), numbers=False)


def _line(place: int, found: RankedModel) -> tuple[object, ...]:
    measures = ("" if (value := found.mean(name)) is None else f"{value:.4g}" for name in _SHOWN)
    return (place, found.model, found.runtime, len(found.cases), *measures, f"{found.seconds:.2f}")


def _rows(ranked: Sequence[RankedModel]) -> list[dict[str, Any]]:
    """A row for each model, case and label."""
    return [
        {"rank": place, "model": found.model, "case": name, "unit": comparison.unit, **asdict(label)}
        for place, found in enumerate(ranked, 1)
        for name, comparison in found.cases
        for label in comparison.labels
    ]


def _mapping(found: RankedModel) -> dict[str, Any]:
    cases = [
        {"name": name, "unit": comparison.unit, "labels": [asdict(label) for label in comparison.labels]}
        for name, comparison in found.cases
    ]
    stated = {"model": found.model, "runtime": found.runtime, "seconds": found.seconds, "means": found.means}
    return {**stated, "cases": cases}

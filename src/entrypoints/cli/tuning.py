"""``voxport tune``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from . import options as opt
from .console import build_application, progress_bar, show_json, show_table

if TYPE_CHECKING:
    from ...domain.parity import Bounds
    from ...domain.tuning import Candidate, Tradeoff, Tuning


@opt.takes_reading_options
def tune_command(
    model: Annotated[
        str | None, typer.Argument(help="A model file, or the name of a model.", show_default="two-photon-vessels")
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            metavar="FILE",
            help="A volume of the model's kind; once for each channel.",
            show_default="the sample for the bundled model, else noise",
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            metavar="FOLDER",
            help="Measure time and Dice at each overlap instead, on NAME_image and NAME_label in this folder; "
            "twice: on the images of one folder and the labels of another.",
        ),
    ] = None,
    card: opt.CardFile = None,
    *,
    options: RunOptions,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure runtimes, precisions and tiles here; auto then uses the fastest with the labels of fp32.

    A tuning holds for this processor, these versions of libraries, and VOXPORT_THREADS.
    """
    application = build_application()
    found = application.find_model(model, card)
    if truth:
        _check_truth(truth, volume)
        with progress_bar(quiet) as progress:
            measured = application.measure_tradeoffs(found, truth, progress, options)
        show_json({"tradeoffs": list(map(_tradeoff, measured))}) if as_json else _show_tradeoffs(measured)
        return
    with progress_bar(quiet) as progress:
        tuned = application.tune(found, volume or (), progress, options)
    bounds = application.bounds
    if as_json:
        show_json(_mapping(tuned, bounds))
    elif not quiet:
        _show(tuned, bounds)


def _check_truth(truth: list[Path], volume: list[str] | None) -> None:
    if volume:
        raise UsageError(
            "--volume", expected="nothing beside --truth", got=" ".join(volume), do="leave one of them out"
        )
    if len(truth) > 2:
        raise UsageError("--truth", expected="one folder or two", got=str(len(truth)), do="leave some out")


def _tradeoff(found: Tradeoff) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(found), "mean_dice": found.mean_dice}


def _show_tradeoffs(measured: Sequence[Tradeoff]) -> None:
    columns = ("runtime", "precision", "overlap", "tiles", "seconds", "ratio", "Dice", "")
    slowest = max(found.seconds for found in measured)
    rows = [
        (
            *(found.runtime, found.precision, f"{found.overlap:g}", found.tiles, f"{found.seconds:.2f}"),
            *(f"{slowest / found.seconds:.2f}x", f"{found.mean_dice:.4f}", "" if found.beaten else "frontier"),
        )
        for found in sorted(measured, key=lambda found: found.seconds)
    ]
    show_table(columns, rows, numbers=False)


def _mapping(tuned: Tuning, bounds: Bounds) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": tuned.name,
        "volume": tuned.volume,
        "date": tuned.date,
        "machine": {**asdict(tuned.machine), "versions": dict(tuned.machine.versions)},
        "bounds": asdict(bounds),
        "choice": asdict(tuned.choice),
        "candidates": [
            {**asdict(candidate), "holds": candidate.holds(bounds), "kept": candidate.choice == tuned.choice}
            for candidate in tuned.candidates
        ],
    }


def _show(tuned: Tuning, bounds: Bounds) -> None:
    first = tuned.candidates[0]
    columns = ("runtime", "precision", "threads", "tile", "batch", "seconds", "ratio", "agreement", "Dice", "verdict")
    rows = [_row(tuned, candidate, first.seconds or 0.0, bounds) for candidate in tuned.candidates]
    show_table(columns, rows, numbers=False)
    typer.echo(
        f"{tuned.name} on {tuned.machine.processor}, measured on {tuned.volume}: auto takes {tuned.choice}.\n"
        f"A way holds if {100 * bounds.label_agreement:g} % of the labels agree with the first one's, "
        f"and Dice is at least {bounds.dice:g} for each."
    )


def _row(tuned: Tuning, candidate: Candidate, reference: float, bounds: Bounds) -> tuple[object, ...]:
    choice, found, seconds = candidate.choice, candidate.agreement, candidate.seconds or 0.0
    way = (choice.runtime, choice.precision, choice.threads, "x".join(map(str, choice.patch)), choice.batch)
    if found is None:
        return (*way, "", "", "", "", candidate.note)
    verdict = "kept" if choice == tuned.choice else "holds"
    verdict = verdict if candidate.holds(bounds) else "does not hold"
    return (
        *way,
        f"{seconds:.3f}",
        f"{reference / seconds:.2f}x" if seconds else "",
        f"{found.label_agreement:.6f}",
        f"{min(found.dice):.5f}",
        f"{verdict}; {candidate.note}" if candidate.note else verdict,
    )

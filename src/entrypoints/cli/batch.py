"""``voxport batch``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from ...domain.volume_names import PACKED, SENT_MASKS, USUAL_FORMAT, MaskFormat
from ...domain.volume_names import mask_format as mask_format_of
from . import options as opt
from .console import (
    bar_display,
    build_application,
    logged_from,
    progress_bar,
    say,
    show_json,
    show_table,
    warn,
    with_flags,
)
from .serving import needs_package

if TYPE_CHECKING:
    from rich.progress import Progress

    from ...services.batch.cohort import CaseResult

MASK_ENDINGS = ", ".join(f".{form}" for form in SENT_MASKS)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Searched, with all folders below it, for volumes.")]
Results = Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the results go.")]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="PATH",
        help=f"Files of a case, e.g. sub-{{case}}/anat/sub-{{case}}_{{channel}}{PACKED}; * stands for anything.",
        show_default=f"CASE_0000{PACKED}, CASE_0001{PACKED} ..., else each file",
    ),
]
Channels = Annotated[
    str | None, typer.Option("--channels", metavar="A,B", help="What {channel} is, in the network's order.")
]
LayoutName = Annotated[
    str,
    typer.Option(
        "--layout", help="Names of cases and results: plain, bids (a dataset of derivatives), or nnunet (masks alone)."
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="ENDING", help=f"Format of masks: {MASK_ENDINGS}.", show_default=PACKED),
]
LabelFile = Annotated[
    str | None,
    typer.Option("--label-table", metavar="FILE", help="Write the labels, .tsv (BIDS), .txt or .label (ITK-SNAP)."),
]
Probabilities = Annotated[bool, typer.Option("--probabilities", help="Write class probabilities too.")]
Preview = Annotated[bool, typer.Option("--preview", help="Write a picture of each result too.")]
Html = Annotated[
    bool, typer.Option("--html", help="Write a page on each case, and one on all: cohort.html, where they are rated.")
]
Rated = Annotated[
    Path | None,
    typer.Option("--rated", metavar="FILE.csv", help="Segment again the cases that this table rejects, and no others."),
]
Shared = Annotated[
    bool, typer.Option("--shared", help="Run the cases as jobs of the queue in the settings, on its workers.")
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="Cases at a time.", show_default="1")]
WatchFolder = Annotated[
    bool, typer.Option("--watch", help="Go on until stopped: take cases that come or change, when they are whole.")
]
Settle = Annotated[
    float,
    typer.Option(
        "--settle", metavar="SECONDS", min=0.1, help="A case is whole when its files stay as they are so long."
    ),
]


@opt.takes_run_options("batch")
def batch_command(
    folder: Folder,
    output: Results,
    model: opt.ModelName = None,
    pattern: Pattern = None,
    channels: Channels = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "auto",
    threads: opt.Threads = None,
    *,
    options: RunOptions,
    layout: LayoutName = "plain",
    mask_format: Format = None,
    probabilities: Probabilities = False,
    preview: Preview = False,
    label_table: LabelFile = None,
    html: Html = False,
    rated: Rated = None,
    concurrency: Concurrency = None,
    shared: Shared = False,
    watch: WatchFolder = False,
    settle: Settle = 10.0,
    cluster: opt.Cluster = None,
    block: opt.BlockEdge = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Segment all cases of a folder; another run does new, changed and failed cases only."""
    needs_package("voxport batch", "dbos")
    from ... import __version__
    from ...client.folders import pack_volume
    from ...domain.cases import CasePattern
    from ...services.batch.cohort import run_batch
    from ...services.batch.discovery import find_cases
    from ...services.batch.folder import BatchFolder
    from ...services.batch.layouts import layout_named
    from ...services.batch.ratings import rejected
    from ...services.batch.record import BatchWork
    from ...services.batch.watch import Watch

    if shared:
        here = {"card": card, "runtime": runtime, "precision": precision, "threads": threads}
        here |= {"memory": options.memory_bytes, "concurrency": concurrency}
        opt.check_remote_options(model, here, beside="--shared", who="every worker")
    for option, given, do in (
        ("--json", as_json, "leave one of them out; reports are written for each case"),
        ("--html", html, f"leave one of them out; voxport report {output} writes the pages at any time"),
        ("--rated", rated is not None, "leave one of them out"),
    ):
        if watch and given:
            raise UsageError(option, expected=f"no {option} beside --watch, which has no end", got="both", do=do)
    named = () if channels is None else opt.names(channels)
    chosen = CasePattern(pattern or "", named) if pattern is not None or named else None
    wanted = {"mask": True, "probabilities": probabilities, "preview": preview}
    outputs = tuple(name for name in wanted if wanted[name])
    form = _mask_format(mask_format)
    laid_out = layout_named(layout, mask=SENT_MASKS[form].ending, version=__version__, volumes=folder, out=output)
    results, at_once = BatchFolder(output, laid_out), concurrency or 1
    on_cluster = opt.cluster_settings(cluster, block)
    if shared and on_cluster:
        do = "leave one of them out; the settings of the workers decide"
        raise UsageError("--shared", expected="no cluster beside it", got="both", do=do)
    application = build_application() if shared else build_application(**results.queue_settings(at_once, on_cluster))
    found = application.find_model(model, card)
    command = {"-m": model or found.card.reference} | ({} if card is None else {"--card": str(card)})
    work = BatchWork(found, options, outputs, runtime, precision, command, form)
    find = partial(find_cases, folder, results, found.card.input.source_count, chosen, outputs, application.volumes)
    cases = () if watch else find()
    cases = cases if rated is None else rejected(rated, cases)
    if label_table is not None:
        application.check_label_table(label_table)
    worker = None
    if not shared:
        loaded = application.load_model(found, runtime=runtime, precision=precision, threads=threads)
        warn(filter(None, (loaded.warning,)))
        worker = partial(application.work_on_jobs, at_once, handler=partial(application.run_job, take=lambda _: loaded))
    try:
        errors_only = logged_from(logging.ERROR, "voxport.jobs")  # other messages are for operators
        with errors_only, bar_display(quiet, "{task.completed:.1f}/{task.total}") as progress:
            ended = run_batch(
                cases,
                folder,
                results,
                work,
                listener := _Listener(progress, len(cases), lists=watch and not quiet),
                open_ports=lambda: application.job_ports,
                locks=application.locks,
                pack=pack_volume,
                worker=worker,
                at_once=at_once,
                watch=Watch(find, folder, settle, say=listener.warn) if watch else None,
                redo=rated is not None,
            )
    except (KeyboardInterrupt, SystemExit):
        say("stopped; the same command goes on where this one stopped")
        raise
    if label_table is not None:
        application.write_label_table(label_table, found.card)
    failed = [result.case for result in ended if result.state == "failed"]
    if html and len(failed) < len(ended):
        with progress_bar(quiet) as drawing:
            made = application.write_pages(output, drawing, volumes=folder, without=failed)
        warn(() if quiet else made.notes)
    _show(ended, output, as_json=as_json, quiet=quiet)
    if failed:
        raise typer.Exit(1)


def _mask_format(ending: str | None) -> MaskFormat:
    """Return the format of an ending, with or without its dot. Raises UsageError."""
    found = USUAL_FORMAT if ending is None else mask_format_of(f"mask.{ending.removeprefix('.')}")
    if found is None:
        raise UsageError("format", expected=f"one of {MASK_ENDINGS}", got=ending or "nothing", do="choose another")
    return found


def _show(ended: Sequence[CaseResult], output: Path, *, as_json: bool, quiet: bool) -> None:
    from rich.markup import escape

    counts = {state: sum(result.state == state for result in ended) for state in ("done", "skipped", "failed")}
    if as_json:
        show_json({"output": str(output), "counts": counts, "cases": [vars(result) for result in ended]})
    elif not quiet:
        done, skipped, failed = counts.values()
        typer.echo(f"{output}: {done} cases segmented, {skipped} unchanged since they were, {failed} failed")
    failures = [result for result in ended if result.state == "failed"]
    if failures:
        rows = ((escape(result.case), escape(with_flags(result.reason or ""))) for result in failures)
        show_table(("failed case", "reason"), rows, numbers=False, to=sys.stderr)


class _Listener:
    """A BatchListener with one bar for all cases."""

    def __init__(self, progress: Progress, cases: int, *, lists: bool) -> None:
        self._progress, self._lists = progress, lists
        self._task = progress.add_task("cases", total=cases)

    def moved(self, cases: float, total: int) -> None:
        self._progress.update(self._task, completed=cases, total=total)

    def ended(self, result: CaseResult) -> None:
        if self._lists:
            reason = f": {with_flags(result.reason)}" if result.reason else ""
            typer.echo(f"{result.case} {result.state}{reason}")

    def warn(self, message: str) -> None:
        self._progress.console.print(f"warning: {message}", markup=False, highlight=False, emoji=False, soft_wrap=True)

"""Shared helpers of commands: parsing, progress bar, warnings, printing."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TextIO

from ...domain.errors import UsageError
from ...domain.run import RunOptions

if TYPE_CHECKING:
    from rich.progress import Progress

    from ...application import Application
    from ...ports.progress import ProgressListener

# the argument of each field that errors name
_OTHERS = (
    "runtime precision threads card key trusted statistics preview probabilities uncertainty label_table report html "
    "against network"
)
FIELDS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *(option.name.removesuffix("_bytes") for option in fields(RunOptions)),
        *(
            *_OTHERS.split(),
            "uncertainty",
            "network_args",
            "network_output",
            "bundle",
            "pattern",
            "channels",
            "layout",
            "format",
            "resample",
            "volumes",
        ),
    )
} | {"checkpoint": "CHECKPOINT", "mask": "-o"}
_WIDEST = 100_000  # characters of a table's line
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def build_application(**settings: Any) -> Application:
    """Build the application, whose modules a command imports only when it needs them; see ``Application.build``."""
    from ...application import Application

    return Application.build(**settings)


def parse_patch(text: str) -> tuple[int, int, int]:
    """Parse ``X,Y,Z`` as three voxel counts. Raises UsageError."""
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch(r"\s*\d+\s*", part) for part in parts):
        raise UsageError("--patch", expected="three whole numbers such as 96,96,16", got=text, do="correct it")
    x, y, z = (int(part) for part in parts)
    return x, y, z


def parse_bytes(text: str) -> int:
    """Parse a size such as 4GB, 800MB or 2e9. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None or not 0 < float(match[1]) < float("inf"):
        raise UsageError("--memory", expected="a size such as 4GB", got=text, do="correct it")
    unit = 1024 ** list(_BYTES).index(match[2]) if match[3] else _BYTES[match[2]]
    return int(float(match[1]) * unit)


def with_flags(message: str) -> str:
    """Write the fields that an error names as this command line's options: ``nan_as`` as ``--nan-as``.

    An error names a field as its subject, or in backticks.
    """
    subject = rf"^({'|'.join(FIELDS)})(?! output)(?=(?: [^:]+)?: expected )"
    message = re.sub(subject, lambda found: FIELDS[found[1]], message)
    return re.sub(r"`(\w+)`", lambda found: FIELDS.get(found[1], found[0]), message)


def say(line: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"voxport: {line}\n")


@contextmanager
def logged_from(level: int, name: str, *, said: bool = False) -> Iterator[None]:
    """Log what comes under a name from a level on, and print it on stderr where ``said``, until the block ends."""
    handler, logger = logging.StreamHandler(), logging.getLogger(name)
    handler.setFormatter(logging.Formatter("voxport: %(message)s"))
    before = logger.level
    logger.setLevel(level)
    if said:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def warn(messages: Iterable[str]) -> None:
    """Print warnings on stderr, one a line."""
    for message in messages:
        sys.stderr.write(f"warning: {message}\n")


def show_json(data: Any) -> None:
    """Print plain data as JSON."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def show_table(
    columns: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True, to: TextIO | None = None
) -> None:
    """Print a table; all but the first column are right-aligned, unless they contain text.

    Long cells are folded on a terminal; a file or a pipe gets a line a row.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if numbers and position else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    wide = None if (to or sys.stdout).isatty() else _WIDEST
    Console(soft_wrap=True, file=to, width=wide).print(table)


@contextmanager
def progress_bar(quiet: bool, *, anywhere: bool = False) -> Iterator[ProgressListener]:
    """Return a listener that draws a bar on stderr if that is a terminal, or ``anywhere``; else nothing."""
    with bar_display(quiet, anywhere=anywhere) as progress:
        yield Bar(progress)


def bar_display(quiet: bool, count: str | None = None, *, anywhere: bool = False) -> Progress:
    """Return a display of tasks on stderr: description, bar, ``count`` and remaining time; see ``progress_bar``."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    is_terminal = sys.stderr.isatty()
    counted = MofNCompleteColumn() if count is None else TextColumn(count)
    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn()),
        console=Console(stderr=True),
        transient=is_terminal,
        disable=quiet or not (anywhere or is_terminal),
    )


class Bar:
    """A listener with one bar of a rich progress display."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("start", total=None)

    def stage(self, name: str, tiles: int = 0) -> None:
        """Restart the bar."""
        self._progress.reset(self._task, description=name, total=tiles or None)

    def advance(self, tiles: int) -> None:
        """Advance the bar."""
        self._progress.advance(self._task, tiles)


def on_stop(handler: Callable[[], object]) -> None:
    """Call ``handler`` on SIGINT and SIGTERM; a signal that the parent process ignores stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: handler())

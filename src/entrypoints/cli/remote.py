"""``voxport segment --server URL``: the same command, run by a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from ...client import Client, is_model_reference
from ...domain.errors import UsageError
from ...services.segmentation.report import same_again_there
from .console import progress_bar
from .outcome import show_outcome

if TYPE_CHECKING:
    from ...domain.run import Outputs, RunOptions
    from ...ports.artifacts import ArtifactWriter
    from ...ports.progress import ProgressListener

# The server's own time limit comes long before; this only ends waiting for one that is gone.
_LONGEST_SILENCE_SECONDS = 6 * 3600.0
_MEGABYTE = 10**6


def check_remote_options(
    model: str | None, here: Mapping[str, object], *, beside: str = "--server", who: str = "the server"
) -> None:
    """UsageError for options that speak of this machine, and for a model that is a file.

    Args:
        model: what ``-m`` names.
        here: options that only a run on this machine takes, and their values; None or ``auto`` where it is left open.
        beside: the option by which it runs elsewhere.
        who: runs it there.
    """
    for option, value in here.items():
        if value not in (None, "auto"):
            do = f"leave one of them out; the settings of {who} decide"
            raise UsageError(f"--{option}", expected=f"no such option beside {beside}", got=str(value), do=do)
    if model is not None and not is_model_reference(model):
        do = f"add the file to the models of {who}, and name it"
        raise UsageError("-m", expected=f"NAME or NAME:VERSION of a model that {who} has", got=model, do=do)


def segment_remotely(
    server: str,
    inputs: Sequence[str],
    model: str | None,
    outputs: Outputs,
    options: RunOptions,
    artifacts: ArtifactWriter,
    *,
    as_json: bool,
    quiet: bool,
    sample: bool,
) -> None:
    """Have a server segment a case, write the results here, and show what a run here shows.

    Args:
        server: its URL; the key is in ``VOXPORT_API_KEY``.
        inputs: the volumes.
        model: the name of one of the server's models; its default where None.
        outputs: where results go.
        options: what to do differently from the card.
        artifacts: writes the report.
        as_json: print JSON.
        quiet: print errors only.
        sample: the case is the bundled one.

    Raises:
        VoxportError: as ``Client.segment``.
    """
    if outputs.report is not None:
        artifacts.check(outputs.report)
    further = {
        "probabilities": outputs.probabilities,
        "statistics": outputs.statistics,
        "preview": outputs.preview,
    }
    with Client(server, timeout_seconds=_LONGEST_SILENCE_SECONDS) as client, progress_bar(quiet) as progress:
        answered = client.segment(
            inputs,
            outputs.mask,
            model=model,
            overlap=options.overlap,
            patch=options.patch,
            blending=options.blending,
            threshold=options.threshold,
            nan_as=options.nan_as,
            outputs={name: place for name, place in further.items() if place is not None},
            hear=_Stages(progress),
        )
    report = {**answered, "command": same_again_there(client.url, inputs, outputs.mask, answered, options)}
    if outputs.report is not None:
        artifacts.write(outputs.report, (json.dumps(report, indent=2) + "\n").encode())
    if quiet:
        return
    show_outcome(report, outputs.mask, as_json)
    if sample and not as_json:
        typer.echo(
            f"Look at {outputs.preview}, and at {outputs.statistics} for the numbers. Next:\n"
            f"  voxport segment YOUR.nii.gz -o mask.nii.gz --preview mask.png --server {client.url}"
        )


class _Stages:
    """Turns a client's bytes into a bar's megabytes."""

    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress
        self._stage, self._shown = "", 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See ``voxport.client.uploads.Hear``."""
        if stage != self._stage:
            self._stage, self._shown = stage, 0
            self._progress.stage(stage if total == 0 else f"{stage} (MB)", -(-total // _MEGABYTE))
        megabytes = -(-done // _MEGABYTE)
        if megabytes > self._shown:
            self._progress.advance(megabytes - self._shown)
            self._shown = megabytes

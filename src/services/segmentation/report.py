"""The provenance of a run, as plain data for a report file."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from ...domain.cards.writing import write_card
from ...domain.reading import Reading, parse_spacing
from ...domain.report import FileReport, GridReport, ModelReport, Report, RuntimeReport, StatisticsReport, TilesReport
from ...domain.run import RESULT_FILES, RunOptions, option_text
from ...ports.runtime import InferenceRuntime
from ..models.loading import LoadedModel
from .preparation.prepare import Prepared
from .segment import Segmentation


def portable_report(
    done: Segmentation, loaded: LoadedModel, *, version: str, mask: str = RESULT_FILES["mask"]
) -> dict[str, Any]:
    """Return the report for readers elsewhere: files have their bare names, without folders."""
    bare = replace(done, inputs=_bare(done.inputs), outputs=_bare(done.outputs))
    names = [name for name, _ in bare.inputs]
    command = same_again(names, loaded.model.card.reference, mask, loaded, bare)
    return run_report(bare, loaded, version=version, command=command)


def run_report(done: Segmentation, loaded: LoadedModel, *, version: str, command: str) -> dict[str, Any]:
    """Return the report of a run as plain data; ``command`` gives the same mask again."""
    import scipy  # takes hundredths of a second; by now the mask is written

    model = loaded.model
    return Report(
        schema="voxport/report/1",
        command=command,
        inputs=tuple(FileReport(*file) for file in done.inputs),
        outputs=tuple(FileReport(*file) for file in done.outputs),
        model=ModelReport(
            model.card.name,
            model.card.version,
            model.path.name,
            model.sha256,
            model.weights_sha256,
            loaded.certified,
            write_card(model.card),
        ),
        runtime=runtime_report(loaded.runtime, loaded.quantised_sha256, loaded.reason),
        tuned=loaded.tuned,
        versions={
            "voxport": version,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "platform": platform.platform(),
        },
        grid=GridReport.of(done.grid),
        model_grid=GridReport.of(done.prepared.space.grid),
        tiles=_tiles(done.prepared, done.repeated_tiles),
        statistics=StatisticsReport.of(done.statistics, done.grid, done.uncertainty),
        seconds={name: round(seconds, 4) for name, seconds in done.seconds.items()},
        network_seconds=round(done.network_seconds, 4),
        warnings=tuple(done.warnings),
        display_window=done.display_window,
        crop=done.prepared.crop,
        postprocessing=done.postprocessing,
    ).mapping()


def runtime_report(
    runtime: InferenceRuntime, quantised_sha256: str | None = None, reason: str | None = None
) -> RuntimeReport:
    """Return the name, library, device and precision of a runtime, and why it was chosen."""
    return RuntimeReport(runtime.name, runtime.version, runtime.device, runtime.precision, quantised_sha256, reason)


def tiles_mapping(prepared: Prepared) -> dict[str, Any]:
    """Return the tile plan of a case that has not run, as plain data."""
    tiles = _tiles(prepared).mapping()
    del tiles["repeated"]
    return tiles


def _tiles(prepared: Prepared, repeated: int = 0) -> TilesReport:
    images = prepared.card.tiling.images
    return TilesReport.of(prepared.plan, resampled=prepared.space.resamples, repeated=repeated, images=images)


def _bare(files: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((PurePath(name).name, sha256) for name, sha256 in files)


def same_again(
    inputs: Sequence[str],
    model: str,
    mask: str,
    loaded: LoadedModel,
    done: Segmentation,
    *,
    card: str | None = None,
    threads: int | None = None,
) -> str:
    """Return the command that gives the same mask, with every choice of the run as an option."""
    prepared, runtime = done.prepared, loaded.runtime
    used = replace(
        prepared.options,
        overlap=prepared.overlap,
        patch=prepared.plan.tile,
        blending=prepared.plan.blending,
        threshold=prepared.card.output.threshold if prepared.card != loaded.model.card else None,
        batch=prepared.batch if prepared.batch > 1 else None,
        memory_bytes=None,
    )
    chosen = {
        "card": card,
        "runtime": runtime.name,
        "precision": runtime.precision,
        "threads": threads if threads is not None or loaded.tuned is None else loaded.tuned.threads,
    }
    return segment_line(inputs, {"-m": model, "-o": mask, **_flags(chosen), **_flags(vars(used))})


def same_again_there(url: str, inputs: Sequence[str], mask: str, report: Mapping[str, Any], options: RunOptions) -> str:
    """Return the command that has a server make the same mask while it has the model."""
    tiles = report["tiles"]
    used = replace(options, patch=tuple(tiles["tile"]), blending=tiles["blending"], memory_bytes=None)
    return segment_line(inputs, {"--server": url, "-m": _reference(report), "-o": mask, **_flags(vars(used))})


def _flags(options: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        f"--{name.replace('_', '-')}": None if value is None else option_text(value) for name, value in options.items()
    }


def curl_line(
    url: str, inputs: Sequence[str], mask: str, report: Mapping[str, Any], reading: Reading, *, with_key: bool
) -> str:
    """The same request to a server as ``curl`` makes it; a key is taken from ``VOXPORT_API_KEY``."""
    tiles = report["tiles"]
    fields = [
        f"model={_reference(report)}",
        f"patch={','.join(map(str, tiles['tile']))}",
        f"blending={tiles['blending']}",
        *(f"{name}={option_text(value)}" for name, value in vars(reading).items() if value is not None),
    ]
    parts = [word for field in (*(f"volume=@{name}" for name in inputs), *fields) for word in ("-F", field)]
    line = shlex.join(["curl", "-sS", "--fail-with-body", *parts, "-o", mask, f"{url}/segment"])
    # the variable has to stand outside of single quotes, to be the shell's
    return f'{line} -H "Authorization: Bearer $VOXPORT_API_KEY"' if with_key else line


def _reference(report: Mapping[str, Any]) -> str:
    return f"{report['model']['name']}:{report['model']['version']}"


def segment_line(inputs: Sequence[str], options: Mapping[str, object]) -> str:
    """``voxport segment`` as it is typed; options that are None are left out."""
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(["voxport", "segment", *inputs, *given])


def read_segment_line(command: str, inputs: int) -> tuple[list[str], dict[str, str]]:
    """Return the inputs, of this number, and the options of a line of `segment_line`. Raises ValueError."""
    words = shlex.split(command)[2:]
    return words[:inputs], dict(zip(words[inputs::2], words[inputs + 1 :: 2], strict=True))


def stated_reading(options: Mapping[str, str]) -> Reading:
    """Return what the options of a line state of its volumes. Raises UsageError, ValueError."""
    kinds: Mapping[str, Callable[[str], Any]] = {"spacing": parse_spacing, "timepoint": int, "level": int}
    return Reading(
        **{
            stated.name: kinds.get(stated.name, str)(options[f"--{stated.name}"])
            for stated in fields(Reading)
            if f"--{stated.name}" in options
        }
    )

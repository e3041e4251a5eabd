"""The provenance of a run, as plain data for a report file."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from ...domain.cards.writing import write_card
from ...domain.geometry.grid import Grid
from ...domain.run import RunOptions
from ...ports.runtime import InferenceRuntime
from ..models.loading import LoadedModel
from .prepare import Prepared
from .segment import Segmentation
from .statistics_file import statistics_mapping

# what an output is called where nobody names it
RESULT_FILES: Mapping[str, str] = {
    "mask": "mask.nii.gz",
    "probabilities": "probabilities.nii.gz",
    "statistics": "statistics.json",
    "preview": "preview.png",
    "report": "report.json",
}
STATISTICS_TABLE = "statistics.csv"


def portable_report(done: Segmentation, loaded: LoadedModel, *, version: str) -> dict[str, Any]:
    """The report of a run whose files are elsewhere than those of who reads it: they go by their bare names."""
    bare = replace(done, inputs=_bare(done.inputs), outputs=_bare(done.outputs))
    names = [name for name, _ in bare.inputs]
    command = same_again(names, loaded.model.card.reference, RESULT_FILES["mask"], loaded, bare)
    return run_report(bare, loaded, version=version, command=command)


def run_report(
    done: Segmentation,
    loaded: LoadedModel,
    *,
    version: str,
    command: str,
) -> dict[str, Any]:
    """Everything that is needed to understand a mask later, and to make it again.

    Args:
        done: the run.
        loaded: what scored.
        version: voxport's version.
        command: the command that gives the same mask again.
    """
    import scipy  # a few hundredths of a second, when all else is done

    model, runtime, quantised = loaded.model, loaded.runtime, loaded.quantised_sha256
    window = {} if done.display_window is None else {"display_window": list(done.display_window)}
    return {
        "schema": "voxport/report/1",
        "command": command,
        "inputs": [{"name": name, "sha256": sha256} for name, sha256 in done.inputs],
        "outputs": [{"name": name, "sha256": sha256} for name, sha256 in done.outputs],
        "model": {
            "name": model.card.name,
            "version": model.card.version,
            "file": model.path.name,
            "sha256": model.sha256,
            "weights_sha256": model.weights_sha256,
            "certified": loaded.certified,
            "card": write_card(model.card),
        },
        "runtime": runtime_mapping(runtime) | ({"quantised_sha256": quantised} if quantised else {}),
        "tuned": None if loaded.tuned is None else {**asdict(loaded.tuned), "patch": list(loaded.tuned.patch)},
        "versions": {
            "voxport": version,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "platform": platform.platform(),
        },
        "grid": grid_mapping(done.grid),
        "model_grid": grid_mapping(done.prepared.space.grid),
        "tiles": {**tiles_mapping(done.prepared), "repeated": done.repeated_tiles},
        "statistics": statistics_mapping(done.statistics, done.grid),
        "seconds": {name: round(seconds, 4) for name, seconds in done.seconds.items()},
        "network_seconds": round(done.network_seconds, 4),
        "warnings": list(done.warnings),
        **window,
    }


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
    """The command that gives the same mask: every choice that was made is spelled out."""
    prepared, runtime = done.prepared, loaded.runtime
    options = {
        "--card": card,
        "--runtime": runtime.name,
        "--precision": runtime.precision,
        "--threads": threads if threads is not None or loaded.tuned is None else loaded.tuned.threads,
        "--overlap": repr(prepared.overlap),
        "--patch": ",".join(map(str, prepared.plan.tile)),
        "--batch": prepared.batch if prepared.batch > 1 else None,
        "--blending": prepared.plan.blending,
        "--nan-as": None if prepared.nan_as is None else repr(prepared.nan_as),
        "--threshold": repr(prepared.card.output.threshold) if prepared.card != loaded.model.card else None,
    }
    return segment_line(inputs, {"-m": model, "-o": mask, **options})


def same_again_there(url: str, inputs: Sequence[str], mask: str, report: Mapping[str, Any], options: RunOptions) -> str:
    """The command that has a server give the same mask while it has the model; what its report knows is spelled out."""
    chosen = {
        "--server": url,
        "-m": _reference(report),
        "-o": mask,
        "--overlap": options.overlap,
        "--patch": ",".join(map(str, report["tiles"]["tile"])),
        "--blending": report["tiles"]["blending"],
        "--nan-as": options.nan_as,
        "--threshold": options.threshold,
    }
    return segment_line(inputs, chosen)


def curl_line(url: str, inputs: Sequence[str], mask: str, report: Mapping[str, Any], *, with_key: bool) -> str:
    """The same request to a server as ``curl`` makes it; a key is taken from ``VOXPORT_API_KEY``."""
    tiles = report["tiles"]
    fields = [
        f"model={_reference(report)}",
        f"patch={','.join(map(str, tiles['tile']))}",
        f"blending={tiles['blending']}",
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


def runtime_mapping(runtime: InferenceRuntime) -> dict[str, str]:
    """What scores, as plain data."""
    return {
        "name": runtime.name,
        "library": runtime.version,
        "device": runtime.device,
        "precision": runtime.precision,
    }


def grid_mapping(grid: Grid) -> dict[str, Any]:
    """A grid as plain data; the affine is in RAS+."""
    return {
        "shape": list(grid.shape),
        "affine_ras": grid.affine.tolist(),
        "spacing": list(grid.spacing),
        "unit": grid.unit,
        "axis_codes": grid.axis_codes,
    }


def tiles_mapping(prepared: Prepared) -> dict[str, Any]:
    """A tile plan as plain data."""
    plan = prepared.plan
    return {
        "count": plan.tile_count,
        "tile": list(plan.tile),
        "padded": list(plan.padded),
        "axis": "xyz"[plan.axis],
        "blending": plan.blending,
        "resampled": prepared.space.resamples,
    }

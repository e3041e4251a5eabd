"""HTML of the page's parts. All values are escaped, also for Gradio's templates."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ...domain.cards.model_card import ModelCard
from ...domain.viewing.display import UNIT_NAMES
from ...ports.segmenter import RunEstimate
from ...services.segmentation.preparation.planning import size
from ...services.viewing.sessions import Result, RunProgress, Session

_STAGES = {
    "wait": "Waiting for its turn",
    "read": "Reading",
    "prepare": "Preparing",
    "upload (MB)": "Sending",
    "score": "Segmenting",
    "postprocess": "Postprocessing",
    "measure": "Measuring",
    "write": "Writing",
    "download (MB)": "Fetching the result",
}
_TIMES = " \N{MULTIPLICATION SIGN} "
_FILES = {"mask": "Mask", "statistics": "Statistics", "report": "Report"}


def plain(value: object) -> str:
    """Escape text for HTML, and for Gradio's templates (``${...}``, ``{{...}}``)."""
    escaped = html.escape(str(value))
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def viewer(scene: Mapping[str, Any] | None) -> str:
    """Return the viewer's element with its scene."""
    content = base64.b64encode(json.dumps(scene).encode()).decode()
    return f'<voxport-viewer data-scene="{content}"></voxport-viewer>'


def error(message: str) -> str:
    """Return an error message."""
    return f'<div class="vx-note vx-error" role="alert">{plain(message)}</div>'


def note(message: str) -> str:
    """Return a message."""
    return f'<div class="vx-note" role="status">{plain(message)}</div>'


def _warnings(messages: Iterable[str]) -> str:
    return "".join(f'<div class="vx-warning">{plain(text)}</div>' for text in messages)


def upload_tip(limit_bytes: int) -> str:
    """Return the limits of an upload in words."""
    return (
        f"Up to {size(limit_bytes)} a file. Files that are dropped together are the channels of one volume; DICOM "
        "files are the slices of one. Drop an OME-Zarr folder as a zip."
    )


def facts(session: Session, formats: Sequence[str]) -> str:
    """Return names, formats, size, spacing with its sources, orientation and channels of the open volume."""
    volume = session.volume
    if volume is None:
        return ""
    grid, notes = volume.case.grid, volume.case.notes
    files = zip(session.files, formats, strict=True)
    names = "".join(f"<li>{plain(path.name)} <small>{plain(kind)}</small></li>" for path, kind in files)
    sizes = _TIMES.join(str(n) for n in grid.shape)
    spacing = _TIMES.join(f"{s:.4g}" for s in grid.spacing)
    if _is_oblique(grid.affine):
        notes = (*notes, "the voxel axes are turned against the world's: letters name the nearest direction")
    unit = "(unit unknown)" if grid.unit == "unknown" else UNIT_NAMES[grid.unit]
    stored = [name for name in volume.case.channel_names if name]
    channels = f": {', '.join(stored)}" if stored else ""
    return (
        f'<div class="vx-facts" role="status"><ul>{names}</ul>{sizes} voxels, {volume.case.channels} '
        f"channel{'s' if volume.case.channels > 1 else ''}{plain(channels)}<br>{spacing} {unit}, "
        f"stored {grid.axis_codes}<br><small>{plain(_sources(volume.case.sources[0].spacing_sources))}</small></div>"
        f"{_warnings(notes)}"
    )


def _sources(sources: Sequence[str]) -> str:
    """Return where the voxel sizes come from: ``spacing from x, y: XResolution; z: spacing``."""
    axes: dict[str, list[str]] = {}
    for axis, source in zip("xyz", sources, strict=True):
        axes.setdefault(source, []).append(axis)
    if len(axes) == 1:
        return f"spacing: {sources[0]}"
    return "spacing from " + "; ".join(f"{', '.join(named)}: {source}" for source, named in axes.items())


def card(model: ModelCard | None) -> str:
    """Return a model's purpose, labels and certificate."""
    if model is None:
        return (
            '<div class="vx-note vx-dummy"><b>No model: dummy mode.</b> What is brighter than a threshold is '
            "labelled, so that the page can be tried. It is no segmentation.</div>"
        )
    rows = {
        "For": model.intended_use,
        "Labels": ", ".join(label.name for label in model.output.table.labels),
        "Channels": ", ".join(channel.name for channel in model.input.channels),
        "Licence": model.licence,
        "Proof": _proof(model),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{plain(value)}</dd>" for name, value in rows.items())
    return f'<div class="vx-card"><p>{plain(model.description)}</p><dl>{listed}</dl></div>'


def estimated(run: RunEstimate) -> str:
    """Return an estimate with its warnings."""
    tiles = f"{run.tiles} tile{'s' if run.tiles != 1 else ''}"
    return (
        f'<div class="vx-note" role="status">{tiles}, about {_seconds(run.seconds)}, '
        f"{size(run.peak_bytes)} of memory.</div>{_warnings(run.warnings)}"
    )


def progress(run: RunProgress, elapsed: float) -> str:
    """Return a bar with the stage, tiles and remaining time."""
    name = _STAGES.get(run.state, run.state)
    share = min(1.0, run.done / run.tiles) if run.tiles else None
    if share is None:
        label = f"{name} …"
    elif run.state == "score":
        left = "" if run.done == 0 else f", about {_seconds((1 - share) / max(share, 1e-9) * elapsed)} left"
        label = f"{name}: tile {min(run.done + 1, run.tiles)} of {run.tiles}{left}"
    else:
        label = f"{name}: {run.done} of {run.tiles} MB"
    value = "" if share is None else f'aria-valuenow="{100 * share:.0f}"'
    width = "" if share is None else f'style="width:{100 * share:.1f}%"'
    kind = "vx-bar" if share is not None else "vx-bar vx-busy"
    return (
        f'<div class="vx-progress"><div class="vx-stage">{plain(label)}</div><div class="{kind}" role="progressbar" '
        f'aria-label="{plain(name)}" aria-valuemin="0" aria-valuemax="100" {value}><div {width}></div></div></div>'
    )


def downloads(session: Session, commands: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Return links to a result's files, what the mask's format cannot say, and commands that reproduce the mask."""
    result = session.result
    if result is None or not result.files:
        return ""
    links = []
    for name in result.files:
        title = next(text for kind, text in _FILES.items() if f"_{kind}." in name)
        links.append(f'<a class="vx-file" href="session/{session.id}/files/{plain(quote(name))}" download>{title}</a>')
    shown = _commands(commands) if commands else ""
    return f'<h2 class="vx-step">4. Take home</h2><div class="vx-files">{"".join(links)}</div>{_warnings(notes)}{shown}'


def summary(result: Result, place: str) -> str:
    """Return the summary of a finished run."""
    report = result.report
    seconds = sum(report["seconds"].values())
    more = ""
    if result.box is not None:
        shape = _TIMES.join(map(str, result.box.shape))
        what = f"Quick look: {shape} voxels around the crosshair, inside the dashed frame, in {_seconds(seconds)}."
        more = "Brightness was judged in this part alone, so the full run can differ. It has no files to download."
    elif "model" not in report:
        what = f"Threshold preview (dummy mode) in {_seconds(seconds)}: no model took part."
    else:
        model, tiles = report["model"], report["tiles"]["count"]
        what = f"{model['name']} {model['version']}: {tiles} tiles in {_seconds(seconds)}, {place}."
    warnings = _warnings(report["warnings"])
    return f'<div class="vx-note vx-done" role="status"><b>{plain(what)}</b> {plain(more)}</div>{warnings}'


def table(result: Result | None) -> tuple[list[str], list[list[object]]]:
    """Return headers and rows of a result's statistics."""
    unit = "unknown" if result is None else result.report["grid"]["unit"]
    cubed = "voxel units" if unit == "unknown" else f"{UNIT_NAMES[unit]}³"
    headers = ["Value", "Label", "Voxels", "% of all", f"Volume ({cubed})", "Pieces", "Mean value", "At the border"]
    if result is None:
        return headers, []
    shape = result.report["grid"]["shape"]
    total = shape[0] * shape[1] * shape[2]
    return headers, [_row(label, total) for label in result.report["statistics"]["labels"]]


def _row(label: Mapping[str, Any], total: int) -> list[object]:
    mean = label["channels"][0]["mean"] if label.get("channels") else None
    return [
        label["value"],
        label["name"],
        label["voxels"],
        round(100 * label["voxels"] / total, 3),
        float(f"{label['volume']:.6g}"),
        label["components"],
        None if mean is None else float(f"{mean:.5g}"),
        "yes" if label.get("touches_border") else "no",
    ]


def _commands(commands: Mapping[str, str]) -> str:
    blocks = "".join(
        f'<div class="vx-command"><span>{title}</span><button type="button" class="vx-copy" '
        f'aria-label="Copy: {title}">Copy</button><pre tabindex="0">{plain(line)}</pre></div>'
        for title, line in commands.items()
    )
    return f'<details class="vx-commands"><summary>The same mask again</summary>{blocks}</details>'


def _proof(model: ModelCard) -> str:
    if model.parity is None:
        return "none: nothing proves that this file does what its network did in training"
    names = [f"{proved.runtime} {proved.precision}" for proved in model.parity.runtimes]
    return f"certified to agree with its source network: {', '.join(names)}"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"


def _is_oblique(affine: Any) -> bool:
    """Return whether a voxel axis is more than about a degree off every world axis."""
    lengths: Sequence[float] = (affine[:3, :3] ** 2).sum(axis=0) ** 0.5
    return bool((abs(affine[:3, :3] / lengths).max(axis=0) < 0.9998).any())

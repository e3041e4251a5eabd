"""HTML of the page's parts, with texts in the page's language, or in English where the core wrote them.

All values are escaped, also for Gradio's templates.
"""

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
from .languages import ENGLISH, Texts

_STAGES = {
    "wait": "stage.wait",
    "read": "stage.read",
    "prepare": "stage.prepare",
    "upload (MB)": "stage.upload",
    "score": "stage.score",
    "postprocess": "stage.postprocess",
    "measure": "stage.measure",
    "write": "stage.write",
    "download (MB)": "stage.download",
}
_TIMES = " \N{MULTIPLICATION SIGN} "
_FILES = {
    "mask": "result.mask",
    "statistics": "result.statistics",
    "report": "result.report",
    "uncertainty": "result.uncertainty",
}
_REASONS = {"border": "result.border", "missed": "result.missed", "piece": "result.piece", "slice": "result.slice"}
_MOST_SPOTS = 10  # of a kind


def plain(value: object) -> str:
    """Escape text for HTML, and for Gradio's templates (``${...}``, ``{{...}}``)."""
    escaped = html.escape(str(value))
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def viewer(scene: Mapping[str, Any] | None) -> str:
    """Return the viewer's element with its scene."""
    content = base64.b64encode(json.dumps(scene).encode()).decode()
    return f'<voxport-viewer data-scene="{content}"></voxport-viewer>'


def error(message: str, language: str = "") -> str:
    """Return an error message. ``language``: of the message, where it is not the page's."""
    return f'<div class="vx-note vx-error" role="alert"{_lang(language)}>{plain(message)}</div>'


def note(message: str) -> str:
    """Return a message."""
    return f'<div class="vx-note" role="status">{plain(message)}</div>'


def place(say: Texts, url: str | None) -> str:
    """Return in words where a volume is segmented: by the server at ``url``, else on this machine."""
    return say("here") if url is None else say("there", url=url)


def facts(say: Texts, session: Session, formats: Sequence[str]) -> str:
    """Return names, formats, size, spacing with its sources, orientation and channels of the open volume."""
    volume = session.volume
    if volume is None:
        return ""
    grid = volume.case.grid
    files = zip(session.files, formats, strict=True)
    names = "".join(f"<li>{plain(path.name)} <small>{plain(kind)}</small></li>" for path, kind in files)
    voxels = say("facts.voxels", shape=_TIMES.join(str(n) for n in grid.shape))
    channels = say.count("facts.channels", volume.case.channels)
    unit = say("facts.no_unit") if grid.unit == "unknown" else UNIT_NAMES[grid.unit]
    sizes = _TIMES.join(f"{s:.4g}" for s in grid.spacing)
    spacing = say("facts.spacing", spacing=sizes, unit=unit, axes=grid.axis_codes)
    stored = [name for name in volume.case.channel_names if name]
    named = f": {', '.join(stored)}" if stored else ""
    oblique = _warning(say("facts.oblique")) if _is_oblique(grid.affine) else ""
    return (
        f'<div class="vx-facts" role="status"><ul>{names}</ul>{voxels}, {channels}{plain(named)}<br>{spacing}<br>'
        f"<small>{plain(_sources(say, volume.case.sources[0].spacing_sources))}</small></div>"
        f"{_warnings(volume.case.notes)}{oblique}"
    )


def _warnings(messages: Iterable[str]) -> str:
    return "".join(_warning(text, ENGLISH) for text in messages)


def _warning(message: str, language: str = "") -> str:
    return f'<div class="vx-warning"{_lang(language)}>{plain(message)}</div>'


def _lang(language: str) -> str:
    return f' lang="{language}"' if language else ""


def _sources(say: Texts, sources: Sequence[str]) -> str:
    """Return where the voxel sizes come from: ``spacing from x, y: XResolution; z: spacing``."""
    axes: dict[str, list[str]] = {}
    for axis, source in zip("xyz", sources, strict=True):
        axes.setdefault(source, []).append(axis)
    if len(axes) == 1:
        return say("facts.source", source=sources[0])
    return say("facts.sources", sources="; ".join(f"{', '.join(named)}: {source}" for source, named in axes.items()))


def card(say: Texts, model: ModelCard | None) -> str:
    """Return a model's purpose, labels and certificate."""
    if model is None:
        return f'<div class="vx-note vx-dummy"><b>{say("card.dummy")}</b> {say("card.dummy_note")}</div>'
    rows = {
        say("card.for"): model.intended_use,
        say("card.labels"): ", ".join(label.name for label in model.output.table.labels),
        say("card.channels"): ", ".join(channel.name for channel in model.input.channels),
        say("card.licence"): model.licence,
        say("card.proof"): _proof(say, model),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{plain(value)}</dd>" for name, value in rows.items())
    return f'<div class="vx-card"><p>{plain(model.description)}</p><dl>{listed}</dl></div>'


def estimated(say: Texts, run: RunEstimate) -> str:
    """Return an estimate with its warnings."""
    tiles, memory = say.count("tiles", run.tiles), size(run.peak_bytes)
    shown = say("run.estimate", tiles=tiles, time=_seconds(run.seconds), memory=memory)
    return f"{note(shown)}{_warnings(run.warnings)}"


def progress(say: Texts, run: RunProgress, elapsed: float) -> str:
    """Return a bar with the stage, tiles and remaining time, or that the run is about to stop."""
    if run.cancelled:
        return note(say("run.stopping"))
    name = say(_STAGES[run.state]) if run.state in _STAGES else run.state
    share = min(1.0, run.done / run.tiles) if run.tiles else None
    if share is None:
        label = say("run.stage", stage=name)
    elif run.state == "score":
        tile = {"stage": name, "number": min(run.done + 1, run.tiles), "count": run.tiles}
        left = _seconds((1 - share) / max(share, 1e-9) * elapsed)
        label = say("run.tile", **tile) if run.done == 0 else say("run.tile_left", **tile, time=left)
    else:
        label = say("run.sent", stage=name, done=run.done, count=run.tiles)
    value = "" if share is None else f'aria-valuenow="{100 * share:.0f}"'
    width = "" if share is None else f'style="width:{100 * share:.1f}%"'
    kind = "vx-bar" if share is not None else "vx-bar vx-busy"
    return (
        f'<div class="vx-progress"><div class="vx-stage">{plain(label)}</div><div class="{kind}" role="progressbar" '
        f'aria-label="{plain(name)}" aria-valuemin="0" aria-valuemax="100" {value}><div {width}></div></div></div>'
    )


def downloads(say: Texts, session: Session, commands: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Return links to a result's files, what the mask's format cannot say, and commands that reproduce the mask."""
    result = session.result
    if result is None or not result.files:
        return ""
    links = []
    for name in result.files:
        title = say(next(key for kind, key in _FILES.items() if f"_{kind}." in name))
        links.append(f'<a class="vx-file" href="session/{session.id}/files/{plain(quote(name))}" download>{title}</a>')
    shown, step = _commands(say, commands) if commands else "", say("result.step")
    return f'<h2 class="vx-step">{step}</h2><div class="vx-files">{"".join(links)}</div>{_warnings(notes)}{shown}'


def summary(say: Texts, result: Result, place: str) -> str:
    """Return the summary of a finished run."""
    report = result.report
    time = _seconds(sum(report["seconds"].values()))
    more = ""
    if result.box is not None:
        what = say("result.part", shape=_TIMES.join(map(str, result.box.shape)), time=time)
        more = say("result.part_note")
    elif "model" not in report:
        what = say("result.dummy", time=time)
    else:
        model, tiles = report["model"], say.count("tiles", report["tiles"]["count"])
        what = say("result.done", model=f"{model['name']} {model['version']}", tiles=tiles, time=time, place=place)
    warnings = _warnings(report["warnings"])
    return f'<div class="vx-note vx-done" role="status"><b>{plain(what)}</b> {plain(more)}</div>{warnings}'


def table(say: Texts, result: Result) -> tuple[list[str], list[list[object]]]:
    """Return headers and rows of a result's statistics."""
    grid = result.report["grid"]
    cubed = say("table.no_unit") if grid["unit"] == "unknown" else f"{UNIT_NAMES[grid['unit']]}³"
    headers = [
        say("table.value"),
        say("table.label"),
        say("table.voxels"),
        say("table.share"),
        say("table.volume", unit=cubed),
        say("table.pieces"),
        say("table.mean"),
        say("table.border"),
    ]
    total = grid["shape"][0] * grid["shape"][1] * grid["shape"][2]
    return headers, [_row(say, label, total) for label in result.report["statistics"]["labels"]]


def _row(say: Texts, label: Mapping[str, Any], total: int) -> list[object]:
    mean = label["channels"][0]["mean"] if label.get("channels") else None
    return [
        label["value"],
        label["name"],
        label["voxels"],
        round(100 * label["voxels"] / total, 3),
        float(f"{label['volume']:.6g}"),
        label["components"],
        None if mean is None else float(f"{mean:.5g}"),
        say("table.yes") if label.get("touches_border") else say("table.no"),
    ]


def spots(say: Texts, result: Result) -> str:
    """Return the list of where to look first, each a button that the viewer listens to."""
    statistics, unit = result.report["statistics"], result.report["grid"]["unit"]
    lists = statistics.get("uncertainty") or {}
    words, rows = say("table.no_unit") if unit == "unknown" else UNIT_NAMES[unit], []
    for spot in (spot for kind in ("places", "pieces", "slices") for spot in lists.get(kind, ())[:_MOST_SPOTS]):
        what = say(_REASONS[spot["reason"]], label=spot["label"], voxels=spot["voxels"])
        at, world = ",".join(map(str, spot["voxel"])), ", ".join(f"{length:.5g}" for length in spot["world"])
        where = say("result.spot", percent=round(100 * spot["entropy"]), slice=spot["slice"], place=f"{world} {words}")
        button = f'<button type="button" class="vx-spot" data-voxel="{at}"><b>{plain(what)}</b> {plain(where)}</button>'
        rows.append(f"<li>{button}</li>")
    title = say("result.look")
    return f'<h2 class="vx-step">{title}</h2><ol class="vx-spots">{"".join(rows)}</ol>' if rows else ""


def _commands(say: Texts, commands: Mapping[str, str]) -> str:
    blocks = "".join(
        f'<div class="vx-command"><span>{say(key)}</span><button type="button" class="vx-copy" '
        f'aria-label="{say("result.copy_title", title=say(key))}">{say("result.copy")}</button>'
        f'<pre tabindex="0">{plain(line)}</pre></div>'
        for key, line in commands.items()
    )
    return f'<details class="vx-commands"><summary>{say("result.again")}</summary>{blocks}</details>'


def _proof(say: Texts, model: ModelCard) -> str:
    if model.parity is None:
        return say("card.unproved")
    names = [f"{proved.runtime} {proved.precision}" for proved in model.parity.runtimes]
    return say("card.proved", runtimes=", ".join(names))


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"


def _is_oblique(affine: Any) -> bool:
    """Return whether a voxel axis is more than about a degree off every world axis."""
    lengths: Sequence[float] = (affine[:3, :3] ** 2).sum(axis=0) ** 0.5
    return bool((abs(affine[:3, :3] / lengths).max(axis=0) < 0.9998).any())

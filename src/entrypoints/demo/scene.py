"""Data for the viewer in the browser: geometry, windows and labels, without voxels, and without texts."""

from __future__ import annotations

from typing import Any

from ...domain.geometry.grid import Grid
from ...domain.viewing.display import UNIT_NAMES, bar_steps
from ...domain.viewing.slicing import PLANES, Plane, PlaneView
from ...services.viewing.sessions import Result, Session


def scene_of(session: Session, model_channels: tuple[str, ...] = (), *, trains: bool = False) -> dict[str, Any] | None:
    """Return a session's volume and result as plain data; None without a volume.

    ``trains``: whether corrected cases can be kept for training.
    """
    volume, result = session.volume, session.result
    if volume is None:
        return None
    grid = volume.case.grid
    names = _channels(session, volume.case.channel_names, model_channels)
    extents = [n * s for n, s in zip(grid.shape, grid.spacing, strict=True)]
    return {
        "id": session.id,
        "token": session.token,
        "volume": f"{session.id}-{session.openings}",
        "revision": session.revision,
        "shape": list(grid.shape),
        "affine": grid.affine.tolist(),
        "unit": "" if grid.unit == "unknown" else UNIT_NAMES[grid.unit],
        "bars": bar_steps(min(extents) / 100, max(extents)),
        "planes": {plane: _plane(grid, plane) for plane in PLANES},
        "channels": [
            {"name": name, "window": window, "range": extent}
            for name, window, extent in zip(names, volume.windows, volume.ranges, strict=True)
        ],
        "mask": None
        if result is None
        else {
            "labels": [{"value": x.value, "name": x.name, "colour": x.colour} for x in result.mask.table.labels],
            "caution": _caution(result),
            "corrected": result.correction is not None,
            "trains": trains,
            "box": None if result.box is None else [list(result.box.start), list(result.box.stop)],
        },
    }


def _caution(result: Result) -> str:
    """Return the key of the caution beside the mask; empty without one."""
    if "model" not in result.report:
        return "viewer.dummy"
    return "" if result.box is None else "viewer.part"


def _plane(grid: Grid, plane: Plane) -> dict[str, Any]:
    """Return the mapping from a plane's pixels to voxels, in both conventions; see ``PlaneView``."""
    views = {c: PlaneView.of(grid, plane, c) for c in ("radiological", "neurological")}
    first = views["radiological"]
    rows, columns, count = first.change.apply_shape(grid.shape)
    return {
        "count": count,
        "size": [rows, columns],
        "pixel": list(first.pixel_spacing),
        "views": {
            convention: {"axes": list(view.change.axes), "flips": list(view.change.flips), "letters": view.letters}
            for convention, view in views.items()
        },
    }


def _channels(session: Session, stored: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Return the name of each channel: the model's, else the file's where each has one, else the stored one, or ""."""
    files = [path.name for path in session.files] if 1 < len(session.files) == len(stored) else [""] * len(stored)
    return list(names) or [file or name for file, name in zip(files, stored, strict=True)]

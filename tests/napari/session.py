"""Sessions of a person at napari, a process each: ``python -m tests.napari.session NAME FOLDER [URL]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import nibabel as nib
import numpy as np
from qtpy.QtWidgets import QApplication

PATIENCE = 120.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Let the viewer work until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        QApplication.processEvents()


@contextmanager
def panel() -> Iterator[tuple[Any, Any]]:
    """A viewer with voxport's panel, found as napari finds it."""
    viewer = napari.Viewer(show=False)
    _, widget = viewer.window.add_plugin_dock_widget("voxport", "Segment")
    wait_for(lambda: widget.segment.enabled, "models are listed")
    try:
        yield viewer, widget
    finally:
        viewer.close()


def run(viewer: Any, widget: Any) -> Any:
    """Press the button and wait; the new layer."""
    before = len(viewer.layers)
    widget.segment.native.click()
    wait_for(lambda: widget.segment.enabled, "the run ends")
    assert len(viewer.layers) == before + 1, widget.status.value
    return viewer.layers[-1]


def check_labels(layer: Any, mask: Any) -> None:
    """The labels are those of a mask, voxel by voxel, with names, colours and statistics."""
    expected = np.asarray(mask.dataobj)
    np.testing.assert_array_equal(layer.data, expected.transpose())
    assert len(set(layer.features["name"])) == 2
    for value, colour, voxels in zip(*(layer.features[n] for n in ("index", "colour", "voxels")), strict=True):
        assert voxels == np.count_nonzero(expected == value) > 0
        shown = tuple(round(255 * float(part)) for part in layer.get_color(value)[:3])
        assert shown == tuple(bytes.fromhex(colour[1:]))


def files(folder: Path, url: str = "") -> None:
    """A file is opened, segmented, and its labels saved: all on the voxels and in the place of the file."""
    scan = nib.load(folder / "scan.nii.gz")
    with panel() as (viewer, widget):
        widget.server.value = url
        wait_for(lambda: widget.segment.enabled, "models of the server are listed")
        (layer,) = viewer.open(folder / "scan.nii.gz", plugin="voxport")
        stored = {"micron": "micrometer", "mm": "millimeter", "unknown": "pixel"}[scan.header.get_xyzt_units()[0]]
        assert [str(unit) for unit in layer.units] == [stored] * 3
        np.testing.assert_array_equal(layer.data, np.asarray(scan.dataobj).transpose())
        for index in np.ndindex(2, 2, 2):
            there = scan.affine[:3, :3] @ index[::-1] + scan.affine[:3, 3]
            np.testing.assert_allclose(layer.data_to_world(index)[::-1], there, atol=1e-5)
        widget.layers.value = [layer.name]
        widget.model.value = "other:1.0.0"
        labels = run(viewer, widget)
        check_labels(labels, nib.load(folder / "mask.nii.gz"))
        np.testing.assert_allclose(labels.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3)))
        assert labels.save(str(folder / "saved.nii.gz"), plugin="voxport") == [str(folder / "saved.nii.gz")]
        saved = nib.load(folder / "saved.nii.gz")
        np.testing.assert_array_equal(np.asarray(saved.dataobj), np.asarray(nib.load(folder / "mask.nii.gz").dataobj))
        np.testing.assert_allclose(saved.affine, scan.affine, atol=1e-5)
        assert saved.header.get_xyzt_units()[0] == scan.header.get_xyzt_units()[0]
        labels.save(str(folder / "saved.seg.nrrd"), plugin="voxport")


def arrays(folder: Path) -> None:
    """Layers of arrays: several channels, a scale in nanometres, a pyramid; and what is no volume is shown."""
    values = np.random.default_rng(3).integers(0, 255, (2, 13, 18, 21), np.uint8)
    np.save(folder / "values.npy", values)
    with panel() as (viewer, widget):
        for name, channel in zip("ab", values, strict=True):
            viewer.add_image(
                channel, name=name, scale=(2000.0, 500.0, 500.0), units=("nm",) * 3, translate=(7.0, 8.0, 9.0)
            )
        widget.layers.value = ["a", "b"]
        widget.model.value = "pair:1.0.0"
        labels = run(viewer, widget)
        np.save(folder / "pair.npy", labels.data)
        np.testing.assert_allclose(labels.scale, (2000.0, 500.0, 500.0))
        widget.layers.value = ["a"]
        widget.segment.native.click()
        wait_for(lambda: widget.segment.enabled, "the refusal")
        assert "expected" in widget.status.value
        assert len(viewer.layers) == 3
        viewer.add_image([values[0], values[0][:, ::2, ::2]], multiscale=True, name="pyramid")
        widget.layers.value = ["pyramid"]
        widget.model.value = "other:1.0.0"
        np.save(folder / "pyramid.npy", run(viewer, widget).data)
        for name, picture in {"flat": values[0, 0], "four": values}.items():
            viewer.add_image(picture, name=name)
            widget.layers.value = [name]
            before = len(viewer.layers)
            widget.segment.native.click()
            wait_for(lambda: widget.segment.enabled, "the refusal")
            assert "expected three dimensions" in widget.status.value
            assert len(viewer.layers) == before


def cancels(folder: Path) -> None:
    """A run is cancelled, and another one begins; a server that is not there is shown."""
    del folder
    with panel() as (viewer, widget):
        layer = viewer.add_image(np.random.default_rng(0).integers(0, 255, (120, 120, 120), np.uint8))
        widget.layers.value = [layer.name]
        widget.model.value = "slow:1.0.0"
        widget.segment.native.click()
        wait_for(lambda: widget.progress.value > 0, "tiles are counted")
        widget.cancel.native.click()
        wait_for(lambda: widget.segment.enabled, "the run ends")
        assert widget.status.value == "cancelled"
        assert len(viewer.layers) == 1
        widget.server.value = "http://127.0.0.1:9"
        wait_for(lambda: widget.segment.enabled, "the server is asked")
        assert "127.0.0.1:9" in widget.status.value
        assert not widget.model.choices


if __name__ == "__main__":
    {"files": files, "arrays": arrays, "cancels": cancels}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])

"""What lies where in the world is seen on that side of the screen, whatever order the voxels are stored in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from .conftest import Visit, save
from .serving import Visitor

SHAPE = (44, 38, 30)  # to the right, anterior, superior
SPACING = (1.0, 1.5, 2.0)
EDGE = 7
LETTERS = {
    "axial": "top A, bottom P, left R, right L",
    "coronal": "top S, bottom I, left R, right L",
    "sagittal": "top S, bottom I, left A, right P",
}
# The grey of a cube in a corner of the world, and where it shows in axial, coronal and sagittal radiological display.
MARKERS = {
    "RAS": (250, {"axial": "top left", "coronal": "top left", "sagittal": "top left"}),
    "RPS": (200, {"axial": "bottom left", "coronal": "top left", "sagittal": "top right"}),
    "LAI": (150, {"axial": "top right", "coronal": "bottom right", "sagittal": "bottom left"}),
    "LPI": (100, {"axial": "bottom right", "coronal": "bottom right", "sagittal": "bottom right"}),
}


def corner(code: str) -> tuple[slice, slice, slice]:
    """The voxels of a corner's cube in the array that runs to the right, anterior and superior."""
    x, y, z = (slice(n - EDGE, n) if c in "RAS" else slice(0, EDGE) for c, n in zip(code, SHAPE, strict=True))
    return x, y, z


def stored(path: Path, codes: str) -> Path:
    """The markers' volume, written in another axis order by nibabel."""
    values = np.zeros(SHAPE, np.uint8)
    for code, (grey, _) in MARKERS.items():
        values[corner(code)] = grey
    affine = np.diag([*SPACING, 1.0])
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nib.apply_orientation(values, change)
    return save(path / f"{codes}.nii.gz", turned, affine @ inv_ornt_aff(change, SHAPE))


def go_to(visitor: Visitor, code: str) -> None:
    """Move the three sliders to a corner; they run to the right, anterior and superior."""
    for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        index = SHAPE[axis] - 3 if code[axis] in "RAS" else 2
        visitor.slide(plane, index)


def where(pixels: np.ndarray, grey: int) -> str:
    """The quarter of the picture in which a grey value is, if it is in one only."""
    hit = np.abs(pixels.astype(int) - grey).max(axis=-1) <= 3
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
    quarters = {
        "top left": hit[:rows, :columns],
        "top right": hit[:rows, columns:],
        "bottom left": hit[rows:, :columns],
        "bottom right": hit[rows:, columns:],
    }
    found = [name for name, part in quarters.items() if np.count_nonzero(part) > 400]
    return " and ".join(found)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIA", "ASL", "PIR", "SRP"])
def test_markers_are_seen_where_they_are_in_the_world(visit: Visit, tmp_path: Path, codes: str) -> None:
    visitor = visit()
    visitor.open(stored(tmp_path, codes))
    assert f"stored {codes}" in visitor.page.inner_text("#vx-facts")
    visitor.set("crosshair", False)
    visitor.set("smooth", False)
    visitor.set("low", 0)
    visitor.set("high", 255)
    for code, (grey, places) in MARKERS.items():
        go_to(visitor, code)
        for plane, place in places.items():
            assert where(visitor.pixels(plane), grey) == place, (code, plane)
            assert LETTERS[plane] in str(visitor.canvas(plane).get_attribute("aria-label"))
    # neurological: left and right change places, and nothing else
    visitor.page.locator("voxport-viewer select[name=convention]").select_option("neurological")
    visitor.wait_for_slices()
    grey, places = MARKERS["LPI"]
    assert where(visitor.pixels("axial"), grey) == "bottom left"
    assert where(visitor.pixels("sagittal"), grey) == places["sagittal"]


def test_the_sides_of_a_picture_are_as_long_as_in_the_world(visit: Visit, tmp_path: Path) -> None:
    visitor = visit()
    values = np.full(SHAPE, 200, np.uint8)
    visitor.open(save(tmp_path / "full.nii.gz", values, np.diag([*SPACING, 1.0])))
    visitor.set("crosshair", False)
    visitor.set("low", 0)
    visitor.set("high", 255)
    extent = {"x": SHAPE[0] * SPACING[0], "y": SHAPE[1] * SPACING[1], "z": SHAPE[2] * SPACING[2]}
    for plane, down, right in (("axial", "y", "x"), ("coronal", "z", "x"), ("sagittal", "z", "y")):
        grey = np.abs(visitor.pixels(plane).astype(int) - 200).max(axis=-1) <= 3
        # lines of many such pixels: the letters' edges have a few
        rows, columns = (np.flatnonzero(grey.sum(axis=axis) > 40) for axis in (1, 0))
        ratio = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
        assert ratio == pytest.approx(extent[down] / extent[right], rel=0.02)

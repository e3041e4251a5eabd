"""The 48 ways to store one volume give one mask in the world, voxel for voxel, through the command line."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main
from voxport.entrypoints.cli.main import app

from .conftest import AFFINE, make_model

ALL_48 = ["".join(p) for order in permutations(("RL", "AP", "SI")) for p in product(*order)]
_VALUES = {
    "uint8": np.random.default_rng(5).integers(0, 255, (19, 14, 11), np.uint8),
    "float32": np.random.default_rng(6).standard_normal((19, 14, 11), np.float32),
}
# The card's x, y and z are 0.51, 0.71 and 1.5 um in this volume; resampled, each axis changes differently.
_SPACING = {"spacing": [0.75, 0.5, 1.2], "spacing_unit": "um"}
_NONZERO = {"intensity": [{"zscore": {"nonzero": True}}, {"clip_percentiles": [1, 99]}]}


def store(values: np.ndarray, codes: str, path: Path) -> nib.Nifti1Image:
    """Save the volume in another storage order; each voxel keeps its place in the world."""
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("micron")
    change = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes))
    stored = image.as_reoriented(change)
    nib.save(stored, path)
    return stored


@cache
def command_line() -> Any:
    """The command line, in this process: 400 runs would take minutes to start otherwise."""
    return typer.main.get_command(app)


def segment(*arguments: object) -> None:
    command_line().main(args=["segment", *map(str, arguments), "--quiet"], standalone_mode=False)


def mask_in_ras(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.requirement("R-GRID")
@pytest.mark.parametrize(
    ("dtype", "fields"),
    [("uint8", {}), ("uint8", _SPACING), ("float32", _NONZERO), ("float32", _SPACING | _NONZERO)],
    ids=["as stored", "resampled", "float", "float, resampled"],
)
@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_all_48_storage_orders_give_the_same_mask_in_the_world(
    tmp_path: Path, dtype: str, fields: dict[str, Any], orientation: str
) -> None:
    model = make_model(tmp_path / "model.onnx", input_fields={"orientation": orientation} | fields)
    first = None
    for codes in ALL_48:
        scan, mask = tmp_path / "scan.nii", tmp_path / "mask.nii"
        stored = store(_VALUES[dtype], codes, scan)
        segment(scan, "-m", model, "-o", mask)
        assert np.array_equal(nib.load(mask).affine, nib.load(scan).affine)
        assert nib.load(mask).shape == stored.shape
        found = mask_in_ras(mask)
        first = found if first is None else first
        np.testing.assert_array_equal(found, first, err_msg=codes)
    assert first is not None
    assert 0.1 < first.mean() < 0.9


def test_without_an_orientation_the_array_goes_to_the_network_as_stored(tmp_path: Path) -> None:
    """The same array under any affine gives the same array of labels, and storage orders give different masks."""
    model = make_model(tmp_path / "model.onnx", input_fields={"orientation": None})
    by_array, by_world = [], []
    for codes in ("RAS", "LPI", "SRA"):
        scan, mask = tmp_path / "scan.nii", tmp_path / "mask.nii"
        nib.save(
            nib.Nifti1Image(
                _VALUES["uint8"], nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (19, 14, 11))
            ),
            scan,
        )
        segment(scan, "-m", model, "-o", mask)
        by_array.append(np.asarray(nib.load(mask).dataobj))
        store(_VALUES["uint8"], codes, scan)
        segment(scan, "-m", model, "-o", mask)
        by_world.append(mask_in_ras(mask))
    assert all(np.array_equal(by_array[0], other) for other in by_array)
    assert not any(np.array_equal(by_world[0], other) for other in by_world[1:])


def test_the_cards_orientation_decides_what_the_network_sees(tmp_path: Path) -> None:
    masks = []
    for orientation in ("RAS", "LAS"):
        model = make_model(tmp_path / f"{orientation}.onnx", input_fields={"orientation": orientation})
        store(_VALUES["uint8"], "RAS", tmp_path / "scan.nii")
        segment(tmp_path / "scan.nii", "-m", model, "-o", tmp_path / "mask.nii")
        masks.append(mask_in_ras(tmp_path / "mask.nii"))
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize("axes", ["XYZ", "ZYX"])
def test_axes_say_how_the_array_is_handed_over(tmp_path: Path, axes: str) -> None:
    """A ZYX network on the array equals an XYZ network on the transposed array."""
    model = make_model(tmp_path / "model.onnx", input_fields={"orientation": None, "axes": axes})
    values = _VALUES["uint8"] if axes == "XYZ" else _VALUES["uint8"].transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii")
    segment(tmp_path / "scan.nii", "-m", model, "-o", tmp_path / "mask.nii")
    found = np.asarray(nib.load(tmp_path / "mask.nii").dataobj)
    plain = make_model(tmp_path / "plain.onnx", input_fields={"orientation": None})
    nib.save(nib.Nifti1Image(_VALUES["uint8"], np.eye(4)), tmp_path / "plain.nii")
    segment(tmp_path / "plain.nii", "-m", plain, "-o", tmp_path / "plain_mask.nii")
    reference = np.asarray(nib.load(tmp_path / "plain_mask.nii").dataobj)
    np.testing.assert_array_equal(found if axes == "XYZ" else found.transpose(2, 1, 0), reference)

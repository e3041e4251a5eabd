"""``voxport batch`` over folders of volumes of every format, written by other libraries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from numpy.typing import NDArray
from voxport.domain.geometry.grid import Grid
from voxport.domain.volume import Volume

from tests.adapters.test_dicom_store import slices_of, write_series

from .conftest import Command

itk: Any = SimpleITK
VALUES: NDArray[Any] = np.random.default_rng(5).integers(0, 200, (12, 11, 10)).astype(np.uint8)
STEPS = (0.5, 0.5, 2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def ome_zarr(path: Path) -> Path:
    """An image of OME-NGFF 0.4 with two levels."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for level, stored in enumerate((VALUES.T, VALUES.T[:, ::2, ::2])):
        array: Any = root.create_array(str(level), shape=stored.shape, dtype=stored.dtype, chunks=(4, 8, 8))
        array[...] = stored
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5 * f, 0.5 * f]}]}
        for level, f in enumerate((1, 2))
    ]
    attributes: Any = root.attrs
    attributes["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def itk_image(path: Path) -> Path:
    image = itk.GetImageFromArray(np.ascontiguousarray(VALUES.T))
    image.SetSpacing(STEPS)
    itk.WriteImage(image, str(path))
    return path


def expected(voxport: Command, folder: Path, model: Path) -> NDArray[Any]:
    """The mask of the same voxels in NIfTI."""
    nib.save(nib.Nifti1Image(VALUES, np.diag([*STEPS, 1])), folder / "own.nii")
    assert voxport("segment", folder / "own.nii", "-m", model, "-o", folder / "own_mask.nii").returncode == 0
    return np.asarray(nib.load(folder / "own_mask.nii").dataobj)


def ended(voxport: Command, *arguments: object) -> dict[str, tuple[str, str]]:
    """State and reason of each case."""
    result = voxport("batch", *arguments, "--json")
    assert "Traceback" not in result.stderr
    cases = json.loads(result.stdout)["cases"] if result.stdout else pytest.fail(result.stderr)
    return {case["case"]: (case["state"], case["reason"] or "") for case in cases}


def test_headers_bring_their_voxels(voxport: Command, folder: Path, model: Path, tmp_path: Path) -> None:
    itk_image(folder / "a.mhd")
    itk_image(folder / "b.nhdr")
    itk_image(folder / "c.mhd")
    (folder / "c.raw").unlink()
    found = ended(voxport, folder, "-o", "out", "-m", model)
    assert {name: state for name, (state, _) in found.items()} == {"a": "done", "b": "done", "c": "failed"}
    assert "its voxels in c.raw beside it" in found["c"][1]
    for name in ("a.mhd", "b.nhdr"):
        own = voxport("segment", folder / name, "-m", model, "-o", "own.nii.gz")
        assert own.returncode == 0, own.stderr
        assert (tmp_path / "out" / f"{name[0]}.nii.gz").read_bytes() == (tmp_path / "own.nii.gz").read_bytes()
    (folder / "a.raw").write_bytes(bytes(VALUES.size))
    assert ended(voxport, folder, "-o", "out", "-m", model)["a"][0] == "done"


@pytest.mark.parametrize("damage", ["missing", "no JSON"])
def test_a_damaged_zarr_is_one_case(voxport: Command, folder: Path, model: Path, tmp_path: Path, damage: str) -> None:
    ome_zarr(folder / "a.zarr")
    attributes = ome_zarr(folder / "b.zarr") / ".zattrs"
    attributes.unlink() if damage == "missing" else attributes.write_text("{", encoding="utf-8")
    for field in ("A/1/0", "B/2/0"):
        ome_zarr(folder / "plate.zarr" / field)
    found = ended(voxport, folder, "-o", "out", "-m", model)
    done = dict.fromkeys(("a", "plate.zarr/A/1/0", "plate.zarr/B/2/0"), "done")
    assert {name: state for name, (state, _) in found.items()} == done | {"b": "failed"}
    assert "expected" in found["b"][1]
    assert "\n" not in found["b"][1]
    mask = np.asarray(nib.load(tmp_path / "out" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, expected(voxport, tmp_path, model))


def test_series_stacks_and_others_in_one_folder(voxport: Command, folder: Path, model: Path, tmp_path: Path) -> None:
    series = Volume(VALUES.astype(np.int16)[np.newaxis], Grid(VALUES.shape, np.diag([*STEPS, 1]), "mm"))
    write_series(folder / "ct" / "one", slices_of(series))
    tifffile.imwrite(folder / "stack.tif", VALUES.T.copy(), metadata=None, photometric="minisblack")
    nib.save(nib.Nifti1Image(VALUES, np.diag([*STEPS, 1])), folder / "brain.nii.gz")
    (folder / "notes.txt").write_text("no volume", encoding="utf-8")
    first = ended(voxport, folder, "-o", "out", "-m", model)
    assert {name: state for name, (state, _) in first.items()} == {"brain": "done", "ct/one": "done", "stack": "failed"}
    assert "name them with `axes`" in first["stack"][1]
    (tmp_path / "tiffs").mkdir()
    shutil.copy(folder / "stack.tif", tmp_path / "tiffs" / "stack.tif")
    stated = ("--axes", "ZYX", "--spacing", ",".join(map(str, STEPS)), "--unit", "um")
    second = ended(voxport, "tiffs", "-o", "masks", "-m", model, *stated, "--format", ".ome.tif")
    assert second == {"stack": ("done", "")}
    mask = tifffile.imread(tmp_path / "masks" / "stack.ome.tif")
    np.testing.assert_array_equal(mask.T, expected(voxport, tmp_path, model))


@pytest.mark.parametrize(
    ("layout", "source", "mask"),
    [
        ("bids", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_*dseg.nii.gz"),
        ("nnunet", "case_0000.nrrd", "case.nii.gz"),
    ],
)
def test_layouts_name_the_masks(
    voxport: Command, folder: Path, model: Path, tmp_path: Path, layout: str, source: str, mask: str
) -> None:
    (folder / source).parent.mkdir(parents=True, exist_ok=True)
    itk_image(folder / source)
    found = ended(voxport, folder, "-o", "out", "-m", model, "--layout", layout)
    assert [state for state, _ in found.values()] == ["done"], found
    assert len(list((tmp_path / "out").glob(mask))) == 1, list((tmp_path / "out").rglob("*"))

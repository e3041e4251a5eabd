"""The client sends files and folders of every format, and gets masks in the format of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from voxport.client import Client
from voxport.domain.errors import InputError, OutputError, UsageError
from voxport.domain.volume import Volume

from tests.adapters.test_dicom_store import slices_of, write_series
from tests.rest.test_formats import GRID, STEPS, VALUES, hdf5, nifti, ome_zarr, tiff

STATED: Any = {"spacing": STEPS, "unit": "mm", "axes": "ZYX"}


@pytest.fixture
def expected(client: Client, tmp_path: Path) -> NDArray[Any]:
    client.segment(nifti(tmp_path / "a.nii"), tmp_path / "expected.nii.gz")
    return np.asarray(nib.load(tmp_path / "expected.nii.gz").dataobj)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An OME-Zarr in a folder."""
    return ome_zarr(tmp_path / "scan.zarr.zip").with_suffix("")


def pixels(path: Path) -> NDArray[Any]:
    """The mask of an OME-Zarr."""
    group = zarr.open_group(path, mode="r")
    attributes: Any = group.attrs.asdict()
    (image,) = (attributes.get("ome") or attributes)["multiscales"]
    array: Any = group[image["datasets"][0]["path"]]
    return np.asarray(array[:]).T


def test_a_tiff_comes_back_as_a_tiff(client: Client, tmp_path: Path, expected: NDArray[Any]) -> None:
    scan = tiff(tmp_path / "scan.ome.tif")
    report = client.segment(scan, tmp_path / "mask.ome.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "mask.ome.tif").T, expected)
    assert [file["name"] for file in report["inputs"]] == [str(scan)]
    assert [file["name"] for file in report["outputs"]] == [str(tmp_path / "mask.ome.tif")]


def test_a_zarr_comes_back_as_a_folder_which_replaces_an_older_one(
    client: Client, tmp_path: Path, folder: Path, expected: NDArray[Any]
) -> None:
    mask = tmp_path / "mask.ome.zarr"
    for _ in range(2):
        client.segment(folder, mask)
        assert np.array_equal(pixels(mask), expected)
        (mask / "older").write_text("to be gone at the end", encoding="utf-8")
    client.segment(folder, mask)
    assert not (mask / "older").exists()
    assert [path.name for path in tmp_path.glob(".voxport-*")] == []


def test_a_zip_of_a_zarr_stays_a_zip(client: Client, tmp_path: Path, folder: Path, expected: NDArray[Any]) -> None:
    client.segment(folder, tmp_path / "mask.zarr.zip")
    with zarr.storage.ZipStore(tmp_path / "mask.zarr.zip", read_only=True) as store:
        assert np.array_equal(pixels(store), expected)  # type: ignore[arg-type]


def test_another_folder_is_not_replaced_by_a_mask(client: Client, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "mask.ome.zarr").mkdir()
    (tmp_path / "mask.ome.zarr" / "thesis.tex").write_text("ten years", encoding="utf-8")
    with pytest.raises(OutputError, match="a folder of that name"):
        client.segment(folder, tmp_path / "mask.ome.zarr")


def test_a_series_in_a_folder_comes_back_as_a_segmentation(
    client: Client, tmp_path: Path, expected: NDArray[Any]
) -> None:
    highdicom: Any = pytest.importorskip("highdicom")
    series = write_series(tmp_path / "series", slices_of(Volume(VALUES[np.newaxis], GRID)))
    (series / "notes.txt").write_text("not sent", encoding="utf-8")
    assert client.plan(series)["grid"]["shape"] == list(VALUES.shape)
    client.segment(series, tmp_path / "mask.dcm")
    mask = highdicom.seg.segread(tmp_path / "mask.dcm").get_volume(combine_segments=True)
    assert np.count_nonzero(mask.array) == np.count_nonzero(expected)


def test_a_dataset_is_named_behind_its_file(client: Client, tmp_path: Path, expected: NDArray[Any]) -> None:
    scan = hdf5(tmp_path / "scan.h5")
    with h5py.File(scan, "a") as file:
        file["other"] = np.zeros((2, 2, 2), np.uint8)
    client.segment(f"{scan}:/raw", tmp_path / "mask.nii", **STATED)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "mask.nii").dataobj), expected)
    with pytest.raises(UsageError, match="series: expected one, got /other and /raw"):
        client.plan([f"{scan}:/raw", f"{scan}:/other"], **STATED)


def test_what_a_file_lacks_is_said_under_its_own_name(client: Client, tmp_path: Path) -> None:
    np.save(tmp_path / "Doe_Jane.npy", VALUES)
    with pytest.raises(InputError, match=r"Doe_Jane\.npy: expected .*`axes`"):
        client.segment(tmp_path / "Doe_Jane.npy", tmp_path / "mask.nii.gz")


def test_a_job_gives_its_mask_in_its_own_format_alone(
    client: Client, tmp_path: Path, folder: Path, expected: NDArray[Any]
) -> None:
    job = client.jobs.submit(folder, format="ome.zarr")
    done = client.jobs.wait(job)
    assert done.format == client.jobs.get(job.id).format == "ome.zarr"
    client.jobs.download(done, tmp_path / "mask.ome.zarr")
    assert np.array_equal(pixels(tmp_path / "mask.ome.zarr"), expected)
    with pytest.raises(UsageError, match=r"expected a name in \.ome\.zarr for the mask of this job"):
        client.jobs.download(done, tmp_path / "mask.nii.gz")
    usual = client.jobs.wait(client.jobs.submit(folder))
    with pytest.raises(UsageError, match=r"expected a name in \.nii\.gz for the mask of this job"):
        client.jobs.download(usual, tmp_path / "mask.ome.tif")


def test_several_models_give_masks_in_one_format(
    client: Client, tmp_path: Path, folder: Path, expected: NDArray[Any]
) -> None:
    models = ["two-photon-vessels:1.0.0", "kidneys:2.0.0-rc.1"]
    for result in client.segment_many(folder, tmp_path, models=models, format="ome.zarr"):
        (mask,) = result.files.values()
        assert mask.name == "mask.ome.zarr"
        assert np.array_equal(pixels(mask), expected)


@pytest.mark.parametrize("name", ["mask.png", "mask.npy", "mask.hdr", "mask", "scan.zarr/labels/mask"])
def test_a_mask_of_a_format_that_is_not_sent_is_refused_before_anything_is(
    client: Client, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=r"expected a name in \.nii\.gz or .* for the mask, got another"):
        client.segment(nifti(tmp_path / "a.nii"), tmp_path / name)

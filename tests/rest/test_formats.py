"""Volumes of every format over HTTP, and masks in every format; other libraries write and read the files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import httpx
import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from voxport.client.folders import zip_folder
from voxport.domain.geometry.grid import Grid
from voxport.domain.volume import Volume
from voxport.domain.volume_names import SENT_MASKS, MaskFormat
from voxport.testing.job_queue import wait_until

from tests.adapters.test_dicom_store import slices_of, write_series

SimpleITK: Any = pytest.importorskip("SimpleITK")
Labels = NDArray[Any]
VALUES = np.random.default_rng(8).integers(0, 256, (21, 18, 13), np.uint8)
STEPS = (0.5, 0.25, 2.0)
STATED = {"spacing": "0.5,0.25,2", "unit": "mm"}
GRID = Grid(VALUES.shape, np.diag([*STEPS, 1.0]), "mm")


def nifti(path: Path, values: Labels = VALUES) -> Path:
    image = nib.Nifti1Image(values, np.diag([*STEPS, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def itk(path: Path) -> Path:
    image = SimpleITK.GetImageFromArray(VALUES.T)
    image.SetSpacing(STEPS)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))
    return path


def mgh(path: Path) -> Path:
    nib.save(nib.MGHImage(VALUES, np.diag([*STEPS, 1.0])), path)
    return path


def tiff(path: Path) -> Path:
    sizes = {f"PhysicalSize{axis}": step for axis, step in zip("XYZ", STEPS, strict=True)}
    units = {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
    tifffile.imwrite(path, VALUES.T, metadata={"axes": "ZYX", **sizes, **units}, ome=True)
    return path


def ome_zarr(path: Path) -> Path:
    folder = path.with_suffix("")
    root = zarr.open_group(folder, mode="w", zarr_format=2)
    root.create_array("0", data=np.ascontiguousarray(VALUES.T), chunks=(8, 8, 8))
    axes: Any = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    scale: Any = [{"type": "scale", "scale": list(STEPS[::-1])}]
    root.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    with path.open("wb") as file:
        zip_folder(folder, file)
    return path


def npy(path: Path) -> Path:
    np.save(path, VALUES.T)
    return path


def hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["raw"] = VALUES.T
    return path


def series(path: Path) -> Path:
    folder = write_series(path.with_suffix(""), slices_of(Volume(VALUES[np.newaxis], GRID)))
    with path.open("wb") as file:
        zip_folder(folder, file)
    return path


UPLOADS: Mapping[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    "a.nii": (nifti, {}),
    "a.nrrd": (itk, STATED),  # the file has no unit
    "a.mha": (itk, STATED),
    "a.mgz": (mgh, {}),
    "a.ome.tif": (tiff, {}),
    "a.zarr.zip": (ome_zarr, {}),
    "a.npy": (npy, {**STATED, "axes": "ZYX"}),
    "a.h5": (hdf5, {**STATED, "axes": "ZYX", "series": "/raw"}),
    "series.zip": (series, {}),
}


def post(http: httpx.Client, route: str, file: Path, name: str | None = None, **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    content = file.read_bytes()
    return http.post(route, files={"volume": (name or file.name, content)}, data=fields, headers=headers)


def labels_of(content: bytes) -> Labels:
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nifti(tmp_path_factory.mktemp("stored") / "a.nii")


@pytest.fixture
def expected(http: httpx.Client, stored: Path) -> Labels:
    answer = post(http, "/segment", stored, format="nii")
    assert answer.status_code == 200, answer.text
    return labels_of(answer.content)


@pytest.mark.parametrize("name", UPLOADS)
def test_a_volume_of_any_format_has_the_mask_of_nifti(
    http: httpx.Client, tmp_path: Path, expected: Labels, name: str
) -> None:
    write, stated = UPLOADS[name]
    file = write(tmp_path / name)
    answer = post(http, "/segment", file, format="nii", **stated)
    assert answer.status_code == 200, answer.text
    mask = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(answer.content))
    assert np.array_equal(np.asarray(mask.dataobj), expected)
    assert np.allclose(mask.header.get_zooms(), STEPS)
    report = json.loads(answer.headers["Voxport-Report"])
    assert report["grid"]["unit"] == "mm"
    planned = post(http, "/v1/plan", file, **stated)
    assert planned.status_code == 200, planned.text
    assert planned.json()["grid"] == report["grid"]


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_what_a_file_does_not_state_is_asked_for_by_the_fields_name(
    http: httpx.Client, tmp_path: Path, name: str
) -> None:
    write, stated = UPLOADS[name]
    file = write(tmp_path / name)
    for absent in ("axes", "spacing"):
        fields = {field: text for field, text in stated.items() if field != absent}
        for route in ("/segment", "/v1/plan", "/v1/jobs"):
            answer = post(http, route, file, **fields)
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:voxport:problem:input"), answer.text
            assert f"`{absent}`" in answer.json()["do"]


def read_nifti(path: Path) -> Labels:
    return np.asarray(nib.load(path).dataobj)


def read_tiff(path: Path) -> Labels:
    return np.asarray(tifffile.imread(path).T)


def read_itk(path: Path) -> Labels:
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T)


def read_zarr(path: Path) -> Labels:
    group = zarr.open_group(zarr.storage.ZipStore(path, read_only=True), mode="r")
    attributes: Any = group.attrs.asdict()
    (image,) = (attributes.get("ome") or attributes)["multiscales"]
    array: Any = group[image["datasets"][0]["path"]]
    return np.asarray(array[:]).T


READERS: Mapping[MaskFormat, tuple[str, Callable[[Path], Labels]]] = {
    "nii.gz": ("mask.nii.gz", read_nifti),
    "nii": ("mask.nii", read_nifti),
    "ome.tif": ("mask.ome.tif", read_tiff),
    "tif": ("mask.tif", read_tiff),
    "ome.zarr": ("mask.ome.zarr.zip", read_zarr),
    "zarr": ("mask.zarr.zip", read_zarr),
    "nrrd": ("mask.nrrd", read_itk),
    "seg.nrrd": ("mask.seg.nrrd", read_itk),
    "mha": ("mask.mha", read_itk),
}


@pytest.mark.parametrize("form", READERS)
def test_a_mask_is_answered_in_the_format_asked_for(
    http: httpx.Client, tmp_path: Path, stored: Path, expected: Labels, form: MaskFormat
) -> None:
    name, read = READERS[form]
    answer = post(http, "/segment", stored, format=form)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == SENT_MASKS[form].media_type
    assert f'filename="{name}"' in answer.headers["content-disposition"]
    (tmp_path / name).write_bytes(answer.content)
    assert np.array_equal(read(tmp_path / name), expected)
    report = json.loads(answer.headers["Voxport-Report"])
    assert [file["name"] for file in report["outputs"]] == [name]
    assert f"-o {name}" in report["command"]


def test_a_series_is_answered_with_a_dicom_segmentation_that_highdicom_reads(
    http: httpx.Client, tmp_path: Path, expected: Labels
) -> None:
    highdicom: Any = pytest.importorskip("highdicom")
    file = series(tmp_path / "series.zip")
    for how in ({"format": "dcm"}, {"headers": {"Accept": "application/dicom"}}):
        answer = post(http, "/segment", file, **how)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/dicom"
        segmentation = highdicom.seg.segread(io.BytesIO(answer.content))
        volume = segmentation.get_volume(combine_segments=True)
        assert np.count_nonzero(volume.array) == np.count_nonzero(expected)


@pytest.mark.parametrize("route", ["/segment", "/v1/jobs"])
def test_a_format_that_cannot_store_the_mask_is_refused_at_once(http: httpx.Client, stored: Path, route: str) -> None:
    answer = post(http, route, stored, format="dcm")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:voxport:problem:usage"), answer.text
    assert "DICOM series as input" in answer.json()["expected"]


@pytest.mark.parametrize("route", ["/segment", "/v1/jobs"])
def test_an_unknown_format_is_refused_with_the_known_ones(http: httpx.Client, stored: Path, route: str) -> None:
    answer = post(http, route, stored, format="png")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("format: expected")
    assert all(form in answer.json()["expected"] for form in SENT_MASKS)


@pytest.mark.parametrize(
    ("accept", "fields", "kind"),
    [
        ("image/tiff", {}, "image/tiff"),
        ("image/tiff;q=0.5, application/gzip", {}, "application/gzip"),
        ("text/html, */*;q=0.8", {}, "application/gzip"),
        ("text/html, */*;q=0.8", {"format": "ome.zarr"}, "application/zip"),
        ("application/octet-stream", {"format": "nrrd"}, "application/octet-stream"),
        ("application/json", {"format": "ome.tif"}, "application/json"),
        ("application/gzip", {"format": "ome.tif"}, None),
        ("image/png", {}, None),
        ("application/octet-stream", {}, None),
    ],
)
def test_accept_chooses_among_what_the_format_leaves(
    http: httpx.Client, stored: Path, accept: str, fields: dict[str, str], kind: str | None
) -> None:
    answer = post(http, "/segment", stored, headers={"Accept": accept}, **fields)
    if kind is None:
        assert (answer.status_code, answer.json()["type"]) == (406, "urn:voxport:problem:not-acceptable")
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


def test_a_zip_of_several_results_has_the_masks_in_the_format(
    http: httpx.Client, stored: Path, expected: Labels, tmp_path: Path
) -> None:
    fields: Any = {"format": "ome.tif", "model": ["edges", "other"], "outputs": ["mask", "report"]}
    answer = post(http, "/segment", stored, **fields)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {f"{model}-1.0.0/{name}" for model in ("edges", "other") for name in ("mask.ome.tif", "report.json")}
        assert set(archive.namelist()) == files | {"results.json"}
        archive.extract("edges-1.0.0/mask.ome.tif", tmp_path)
    assert np.array_equal(read_tiff(tmp_path / "edges-1.0.0" / "mask.ome.tif"), expected)


@pytest.mark.parametrize("form", [form for form in READERS if form not in ("nii.gz", "tif", "zarr")])
def test_a_job_keeps_the_format_and_what_was_stated_of_the_volume(
    http: httpx.Client, tmp_path: Path, expected: Labels, form: MaskFormat
) -> None:
    write, stated = UPLOADS["a.h5"]
    answer = post(http, "/v1/jobs", write(tmp_path / "a.h5"), format=form, **stated)
    assert answer.status_code == 202, answer.text
    place = answer.headers["Location"]
    wait_until(lambda: http.get(place).json()["ended"] is not None, 60)
    job = http.get(place).json()
    assert (job["state"], job["format"]) == ("done", form), job
    mask, (name, read) = http.get(f"{place}/mask"), READERS[form]
    assert mask.headers["content-type"] == SENT_MASKS[form].media_type
    assert f'filename="{name}"' in mask.headers["content-disposition"]
    (tmp_path / name).write_bytes(mask.content)
    assert np.array_equal(read(tmp_path / name), expected)
    for plane in ("axial", "coronal", "sagittal"):
        picture = http.get(f"{place}/preview.png", params={"plane": plane})
        assert picture.status_code == 200, picture.text
        assert picture.content.startswith(b"\x89PNG")


def test_the_slice_of_a_job_shows_the_same_mask_in_each_format(http: httpx.Client, stored: Path) -> None:
    pictures = set()
    for form in ("nii.gz", "ome.tif", "nrrd"):
        place = post(http, "/v1/jobs", stored, format=form).headers["Location"]
        wait_until(lambda place=place: http.get(place).json()["ended"] is not None, 60)  # type: ignore[misc]
        pictures.add(http.get(f"{place}/preview.png", params={"plane": "axial", "index": 4}).content)
    assert len(pictures) == 1


def test_a_key_names_one_format(http: httpx.Client, stored: Path) -> None:
    headers = {"Idempotency-Key": "one case in two formats"}
    first = post(http, "/v1/jobs", stored, headers=headers)
    assert post(http, "/v1/jobs", stored, headers=headers).json()["id"] == first.json()["id"]
    other = post(http, "/v1/jobs", stored, headers=headers, format="nrrd")
    assert other.status_code == 422
    assert "the case that it was used for" in other.json()["detail"]

"""A file of any format that cannot be segmented as it is: one line, and what the line advises works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from voxport.domain.geometry.grid import Grid
from voxport.domain.volume import Volume

from tests.adapters.test_dicom_store import slices_of, write_series

from .conftest import Command
from .test_bad_inputs import refused
from .test_batch_formats import STEPS, VALUES, ome_zarr

STORED: NDArray[Any] = np.ascontiguousarray(VALUES.T)
OME: Any = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", STEPS, strict=True)}
SIZES = ("--spacing", "0.5,0.5,2", "--unit", "um")
Make = Callable[[Path], Path]


def plain_tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "plain.tif", STORED, metadata=None, photometric="minisblack")
    return folder / "plain.tif"


def plain_array(folder: Path) -> Path:
    np.save(folder / "plain.npy", STORED)
    return folder / "plain.npy"


def colours(folder: Path) -> Path:
    picture = np.stack([STORED] * 3, axis=-1)
    tifffile.imwrite(folder / "colours.tif", picture, photometric="rgb")
    return folder / "colours.tif"


def times(folder: Path) -> Path:
    tifffile.imwrite(folder / "times.ome.tif", np.stack([STORED] * 3), metadata={"axes": "TZYX", **OME})
    return folder / "times.ome.tif"


def channels(folder: Path) -> Path:
    names = {"Channel": {"Name": ["red", "green"]}}
    tifffile.imwrite(folder / "two.ome.tif", np.stack([STORED] * 2), metadata={"axes": "CZYX", **OME, **names})
    return folder / "two.ome.tif"


def two_series(folder: Path) -> Path:
    grid = Grid((12, 11, 10), np.diag([*STEPS, 1]), "mm")
    slices = Volume(VALUES.astype(np.int16)[np.newaxis], grid)
    for uid in ("1.2.3.4", "1.2.3.5"):
        write_series(folder / "study" / uid, slices_of(slices, uid))
    return folder / "study"


@pytest.mark.parametrize(
    ("make", "words", "advised"),
    [
        (plain_tiff, ["name them with --axes, e.g. ZYX"], ["--axes", "ZYX", *SIZES]),
        (plain_array, ["name them with --axes, e.g. ZYX"], ["--axes", "ZYX", *SIZES]),
        (colours, ["RGB", "--channel, e.g. 0"], ["--channel", "0", *SIZES]),
        (times, ["one point in time, got 3", "--timepoint"], ["--timepoint", "1"]),
        (channels, ["1 channel(s)", "got 2", "--channel"], ["--channel", "green"]),
        (two_series, ["1.2.3.4", "1.2.3.5", "--series"], ["--series", "1.2.3.5"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_the_line_advises_works(
    voxport: Command, model: Path, tmp_path: Path, make: Make, words: list[str], advised: list[str]
) -> None:
    given = make(tmp_path)
    command = ("segment", given.name, "-m", model, "-o", "mask.nii.gz")
    refused(voxport(*command), 3, tmp_path, given.name, *words)
    result = voxport(*command, *advised)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mask.nii.gz").is_file()


@pytest.mark.parametrize("make", [plain_tiff, plain_array], ids=lambda make: make.__name__)
def test_axes_without_voxel_sizes_are_not_enough(voxport: Command, model: Path, tmp_path: Path, make: Make) -> None:
    given = make(tmp_path)
    result = voxport("segment", given.name, "-m", model, "-o", "mask.nii.gz", "--axes", "ZYX")
    refused(result, 3, tmp_path, given.name, "--spacing")


def truncated_page(folder: Path) -> Path:
    values = np.random.default_rng(1).integers(0, 255, (10, 64, 64), np.uint8)
    path = folder / "cut.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": "ZYX", **OME})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def damaged_chunk(folder: Path) -> Path:
    path = ome_zarr(folder / "damaged.zarr")
    (path / "0" / "1.0.0").write_bytes(b"\x02\x01 no chunk")
    return path


def unknown_codec(folder: Path) -> Path:
    path = ome_zarr(folder / "codec.zarr")
    metadata = json.loads((path / "0" / ".zarray").read_text(encoding="utf-8"))
    metadata["compressor"] = {"id": "nosuchcodec"}
    (path / "0" / ".zarray").write_text(json.dumps(metadata), encoding="utf-8")
    return path


def missing_slice(folder: Path) -> Path:
    path = two_series(folder) / "1.2.3.4"
    by_place = sorted(path.iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    by_place[4].unlink()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (truncated_page, "copy it again"),
        (damaged_chunk, "copy or write the volume again"),
        (unknown_codec, "got nosuchcodec; store it with another codec"),
        (missing_slice, "slice"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damage_is_one_line(voxport: Command, model: Path, tmp_path: Path, make: Make, words: str) -> None:
    given = make(tmp_path)
    refused(voxport("segment", given, "-m", model, "-o", "mask.nii.gz"), 3, tmp_path, given.name, words)


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("out.xyz", 2, "-o: expected a name in .nii, .nii.gz,"),
        ("out.czi", 2, "-o: expected a name in .nii, .nii.gz,"),
        ("out.dcm", 2, "expected a DICOM series as input"),
        ("in.zarr/labels/x", 1, "expected an OME-Zarr image, got none at"),
        ("s3://bucket/x.ome.zarr", 1, "expected a path, got a URL; write it to a path"),
    ],
)
def test_a_mask_that_has_no_place_is_one_line(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, output: str, code: int, words: str
) -> None:
    refused(voxport("segment", scan, "-m", model, "-o", output, "--quiet"), code, tmp_path, words)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(("data", "config"))) == [
        "model.onnx",
        "scan.nii.gz",
    ]

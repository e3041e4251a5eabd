"""Any slice of a job's first volume can be looked at, counted as its owner counts, with the mask over it."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.nifti.source import NiftiSource
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import InputError, OutputError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.job import Job, JobCase, StoredFile
from voxport.domain.viewing.slicing import PLANES, Plane
from voxport.services.jobs.slice_preview import job_slice
from voxport.services.segmentation.segment import SegmentPorts
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import make_card, make_grid

SHAPE = (64, 56, 48)
VOXEL = (44, 38, 16)  # away from the letters at the sides, from whichever one looks
CODES = ["RAS", "LPI", "SAR", "PIL"]
PORTS = SegmentPorts(NiftiStore(), LocalFiles(), PngPictures(), FixedResources())


def stored(blobs: MemoryBlobs, name: str, content: bytes) -> StoredFile:
    return StoredFile(name, f"case/{name}", blobs.put(f"case/{name}", io.BytesIO(content)))


def image_of(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], codes: str = "RAS") -> bytes:
    return bytes(nib.Nifti1Image(values, make_grid(SHAPE, codes=codes).affine).to_bytes())


def done_job(blobs: MemoryBlobs, codes: str = "RAS") -> Job:
    """A job whose volume is dark but for noise, with one labelled voxel."""
    values = np.random.default_rng(0).integers(0, 100, SHAPE, np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    labels[VOXEL] = 2
    card = write_card(make_card(labels=(1, 2)))
    card["output"]["labels"][1]["colour"] = "#ff0000"
    report = json.dumps({"model": {"card": card}}).encode()
    case = JobCase("case", (stored(blobs, "volume_1.nii", image_of(values, codes)),), "m:1")
    results = {
        "mask": stored(blobs, "mask.nii", image_of(labels, codes)),
        "report": stored(blobs, "report.json", report),
    }
    return Job("1", "ada", case, 0.0, state="done", results=results)


def shown(
    job: Job, blobs: MemoryBlobs, plane: Plane, index: int | None = None
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    folders = ScratchFolders(None, FileLocks())
    content = job_slice(job, plane, index, RecordingProgress(), blobs=blobs, ports=PORTS, folders=folders)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def is_red(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
    return red > green + 50


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("plane", PLANES)
def test_a_labelled_voxel_is_in_the_slice_of_its_own_index_and_no_other(plane: Plane, codes: str) -> None:
    blobs = MemoryBlobs()
    job = done_job(blobs, codes)
    across = {"axial": "SI", "coronal": "AP", "sagittal": "RL"}[plane]
    axis = next(axis for axis, letter in enumerate(codes) if letter in across)
    index = VOXEL[axis]
    assert is_red(shown(job, blobs, plane, index)).sum() == 1
    assert not is_red(shown(job, blobs, plane, index - 1)).any()
    assert not is_red(shown(job, blobs, plane, SHAPE[axis] - 1 - index)).any()
    rows, columns = sorted(set(SHAPE) - {SHAPE[axis]}), sorted(shown(job, blobs, plane, index).shape[:2])
    assert rows == columns


def test_of_a_volume_whose_report_states_its_window_one_slice_is_read() -> None:
    blobs, read = MemoryBlobs(), list[Box]()
    job = done_job(blobs)
    report = json.loads(blobs.contents[job.results["report"].blob]) | {"display_window": [0.0, 99.0]}
    job = replace(job, results={**job.results, "report": stored(blobs, "stated.json", json.dumps(report).encode())})
    expected = shown(job, blobs, "axial", 5)
    with pytest.MonkeyPatch.context() as patch:
        original = NiftiSource.read

        def noted(
            source: NiftiSource, box: Box, channels: Sequence[int] | None = None
        ) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
            read.append(box)
            return original(source, box, channels)

        patch.setattr(NiftiSource, "read", noted)
        np.testing.assert_array_equal(shown(job, blobs, "axial", 5), expected)
    assert [box.shape for box in read] == [(64, 56, 1)] * 2


def test_without_an_index_it_is_the_middle() -> None:
    blobs = MemoryBlobs()
    job = done_job(blobs)
    np.testing.assert_array_equal(shown(job, blobs, "axial"), shown(job, blobs, "axial", SHAPE[2] // 2))
    assert not np.array_equal(shown(job, blobs, "axial"), shown(job, blobs, "axial", 3))


@pytest.mark.parametrize("index", [-1, SHAPE[1], 10**30])
def test_a_slice_that_there_is_not_is_refused(index: int) -> None:
    blobs = MemoryBlobs()
    with pytest.raises(UsageError, match=r"index: expected a slice from 0 to 55"):
        shown(done_job(blobs), blobs, "coronal", index)


def test_values_that_are_no_numbers_are_black_and_count_as_the_run_took_them() -> None:
    blobs = MemoryBlobs()
    job = done_job(blobs)
    values = np.full(SHAPE, 100.0, np.float32)
    values[:, ::2] = np.nan
    volume = stored(blobs, "holes.nii", image_of(values))
    holed = replace(job, case=replace(job.case, inputs=(volume,), options={"nan_as": 50.0}))
    whole = replace(
        job, case=replace(job.case, inputs=(stored(blobs, "full.nii", image_of(np.nan_to_num(values, nan=50))),))
    )
    picture = shown(holed, blobs, "axial", 5)
    assert set(np.unique(picture[20:30, 20:30])) == {0, 255}
    np.testing.assert_array_equal(picture, shown(whole, blobs, "axial", 5))


def test_a_file_that_is_gone_is_told_of() -> None:
    blobs = MemoryBlobs()
    job = done_job(blobs)
    del blobs.contents["case/mask.nii"]
    with pytest.raises(InputError, match=r"case/mask\.nii"):
        shown(job, blobs, "axial")


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, OutputError), (errno.EIO, OSError)])
def test_a_disk_without_room_is_told_from_files_that_cannot_be_read(number: int, error: type[Exception]) -> None:
    class Failing(MemoryBlobs):
        def fetch(self, name: str, destination: Path) -> str:  # noqa: ARG002
            raise OSError(number, os.strerror(number))

    blobs = Failing()
    with pytest.raises(error):
        shown(done_job(blobs), blobs, "axial")

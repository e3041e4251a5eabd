"""Results inside an input: label images of an OME-Zarr, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.errors import UsageError
from voxport.domain.run import Outputs
from voxport.services.segmentation.outputs import check_outputs


def check(folder: Path, given: str, **outputs: str) -> None:
    paths = {name: str(folder / path) for name, path in outputs.items()}
    store = RoutedStore(NiftiStore(folder), OmeZarrStore())
    check_outputs([str(folder / given)], Outputs(**paths), volumes=store, artifacts=LocalFiles())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scan.zarr" / "A" / "1").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ("scan.zarr", "scan.zarr/labels/vessels"),
        ("scan.zarr/A/1", "scan.zarr/A/1/labels/vessels"),
        ("scan.zarr", "other.zarr"),
        ("scan.zarr/labels/old", "scan.zarr/labels/new"),
    ],
)
def test_a_label_image_has_its_place_inside_the_image(folder: Path, given: str, mask: str) -> None:
    check(folder, given, mask=mask)


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        ("scan.zarr", {"mask": "scan.zarr"}),
        ("scan.zarr", {"mask": "scan.zarr/A/mask.nii.gz"}),
        ("scan.zarr", {"mask": "scan.zarr/A/mask.zarr"}),
        ("scan.zarr/A/1", {"mask": "scan.zarr"}),
        ("scan.zarr/labels/old", {"mask": "scan.zarr/labels/old"}),
        ("scan.zarr", {"mask": "mask.zarr", "statistics": "scan.zarr/A/statistics.csv"}),
    ],
)
def test_nothing_else_has(folder: Path, given: str, outputs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected a place of its own"):
        check(folder, given, **outputs)

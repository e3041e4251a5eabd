"""Results whose names end in what they are not are refused before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import UsageError
from voxport.domain.run import Outputs
from voxport.ports.volume_store import VolumeStore
from voxport.services.segmentation.outputs import check_outputs


def check(folder: Path, names: Mapping[str, str], store: VolumeStore | None = None) -> None:
    """Check names in a folder; a mask that is not named has a good one."""
    outputs = Outputs(**{name: str(folder / file) for name, file in {"mask": "mask.nii.gz", **names}.items()})
    check_outputs([str(folder / "scan.nii")], outputs, volumes=store or NiftiStore(folder), artifacts=LocalFiles())


@pytest.mark.parametrize(
    ("output", "file", "expected"),
    [
        ("preview", "preview.jpg", r"a name in \.png"),
        ("preview", "png", r"a name in \.png"),
        ("html", "page.htm", r"a name in \.html"),
        ("mask", "mask.png", r"a name in .*\.nii\.gz"),
        ("probabilities", "probabilities", r"a name in .*\.nii\.gz"),
        ("uncertainty", "uncertainty.csv", r"a name in .*\.nii\.gz"),
    ],
)
def test_a_name_with_the_ending_of_something_else_is_refused(
    tmp_path: Path, output: str, file: str, expected: str
) -> None:
    with pytest.raises(UsageError, match=rf"^{output}: expected {expected}.*, got .*{file}; rename it"):
        check(tmp_path, {output: file})


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    check(tmp_path, {"mask": "mask.NII", "preview": "preview.PNG", "html": "page.HTML"})
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_formats_takes_any_name_of_a_volume(tmp_path: Path) -> None:
    check(tmp_path, {"mask": "mask", "probabilities": "probabilities.png"}, MemoryStore())

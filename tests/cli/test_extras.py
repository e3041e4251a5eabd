"""A command whose extra is not installed says which one it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main
from voxport.domain.errors import UsageError
from voxport.entrypoints.cli import serving
from voxport.entrypoints.cli.main import app

from tests.real_data.writers import FORMATS


def run(*arguments: str) -> None:
    """Run a command in this process."""
    command: Any = typer.main.get_command(app)
    command.main(args=list(arguments), standalone_mode=False)


def refuse(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let a package, and what was imported of it, be missing."""
    for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        ("serve", "bentoml", "serving"),
        ("up", "bentoml", "serving"),
        ("up", "gradio", "demo"),
        ("worker", "dbos", "serving"),
        ("jobs list", "dbos", "serving"),
        ("batch . -o out", "dbos", "serving"),
        ("demo", "gradio", "demo"),
    ],
)
def test_the_extra_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch, arguments: str, missing: str, extra: str
) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(UsageError, match=rf"expected the package {missing}, .*pip install 'voxport\[{extra}\]'"):
        run(*arguments.split())


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        ("sbom", "cyclonedx", "signing"),
        ("models bom two-photon-vessels", "cyclonedx", "signing"),
        ("models check two-photon-vessels --trusted mask.nii", "model_signing", "signing"),
        ("measure mask.nii -o tubes", "skan", "tubular"),
    ],
)
def test_the_extra_of_a_library_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: str, missing: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), "mask.nii")
    refuse(monkeypatch, missing)
    with pytest.raises(UsageError, match=rf"expected the package {missing}, .*pip install 'voxport\[{extra}\]'"):
        run(*arguments.split())
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii"]


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("OME-TIFF", "tifffile", "microscopy"),
        ("zarr", "zarr", "microscopy"),
        ("HDF5", "h5py", "microscopy"),
        ("DICOM", "pydicom", "medical"),
    ],
)
def test_a_volume_names_the_extra_of_its_format(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, missing: str, extra: str
) -> None:
    file, _ = FORMATS[name].write(tmp_path, np.zeros((1, 12, 10, 8), np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]), "mm")
    refuse(monkeypatch, missing)
    with pytest.raises(UsageError, match=rf"expected the package {missing}, .*pip install 'voxport\[{extra}\]'"):
        run("inspect", str(file))


@pytest.mark.parametrize(
    ("mask", "missing", "extra"),
    [
        ("mask.ome.tif", "tifffile", "microscopy"),
        ("mask.ome.zarr", "zarr", "microscopy"),
        ("mask.dcm", "highdicom", "medical"),
    ],
)
def test_a_mask_names_the_extra_of_its_format(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mask: str, missing: str, extra: str
) -> None:
    values, affine = np.zeros((1, 12, 10, 8), np.uint8), np.diag([2.0, 2.0, 3.0, 1.0])
    series, _ = FORMATS["DICOM"].write(tmp_path, values, affine, "mm")
    refuse(monkeypatch, missing)
    with pytest.raises(UsageError, match=rf"expected the package {missing}, .*pip install 'voxport\[{extra}\]'"):
        run("convert", str(series), "-o", str(tmp_path / mask))

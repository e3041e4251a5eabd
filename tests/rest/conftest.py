"""One server for the tests that need nothing of their own, with five models of which one always fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.contract.card import read_card
from voxport.domain.cards.writing import write_card

from tests.cli.conftest import AFFINE, make_model

from .serving import Server, running_server


def named_model(folder: Path, name: str, version: str = "1.0.0", **options: object) -> Path:
    """A small model of this name in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = make_model(folder / f"{name}-{version}.onnx", **options)  # type: ignore[arg-type]
    files = OnnxModelFiles()
    card = write_card(files.read(path).card) | {"name": name, "version": version, "parity": None}
    files.write(path, read_card(card), path)
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``voxport serve`` with edges (the default), other, many with 59 labels, and pair, which wants two channels."""
    folder = tmp_path_factory.mktemp("server")
    named_model(folder / "models", "edges")
    named_model(folder / "models", "many", classes=60)
    named_model(folder / "models", "other", classes=3)
    named_model(folder / "models", "pair", channels=2)
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges") as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client of the server."""
    with server.client() as client:
        yield client


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A uint8 volume, 21 x 18 x 13, oblique, in micrometres."""
    values = np.random.default_rng(3).integers(0, 256, (21, 18, 13), np.uint8)
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "patient-12345.nii.gz")
    return tmp_path / "patient-12345.nii.gz"

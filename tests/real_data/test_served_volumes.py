"""Three real volumes: the same mask from the command, from the service, and from the command that asks the service."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.entrypoints.cli.main import app

from tests.rest.serving import Server, running_server

pytestmark = pytest.mark.real_data

VOLUMES = (
    "ct_mr/example_ct_sm.nii.gz",
    "octa/tubenet_octa_image.nii.gz",
    "two_photon/burgess2014_lowerRes_hiSNR_image.nii.gz",
)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``voxport serve`` as it comes, with the bundled model."""
    with running_server(tmp_path_factory.mktemp("bundled")) as server:
        yield server


@pytest.mark.parametrize("name", VOLUMES)
def test_one_mask_whoever_asks(bundled: Server, real_data: Path, tmp_path: Path, name: str) -> None:
    scan, local, remote = real_data / name, tmp_path / "local.nii.gz", tmp_path / "remote.nii.gz"
    if name.startswith("two_photon"):  # all of it is scored four times here
        scan = tmp_path / "part.nii.gz"
        nib.save(nib.load(real_data / name).slicer[:256, :256], scan)
    app(args=["segment", str(scan), "-o", str(local), "--quiet"], standalone_mode=False)
    app(args=["segment", str(scan), "-o", str(remote), "--quiet", "--server", bundled.url], standalone_mode=False)
    with bundled.client() as http:
        answer = http.post("/segment", files={"volume": scan.read_bytes()})
        assert answer.status_code == 200, answer.text
        assert local.read_bytes() == remote.read_bytes() == answer.content
        image, mask = (nib.as_closest_canonical(nib.load(path)) for path in (scan, local))
        values = np.asarray(image.dataobj)
        content = io.BytesIO()
        np.save(content, values)
        predicted = http.post("/predict", files={"volume": content.getvalue()})
    assert predicted.status_code == 200, predicted.text[:500]
    np.testing.assert_array_equal(np.array(predicted.json()["segmentation"]), np.asarray(mask.dataobj))
    assert gzip.decompress(answer.content)[:4] == b"\x5c\x01\x00\x00"

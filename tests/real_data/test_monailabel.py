"""MONAI Label's client, which 3D Slicer has, segments a real volume as the command line does."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.entrypoints.cli.main import app

from tests.rest.conftest import named_model
from tests.rest.serving import running_server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_real_ct_in_a_session_gets_the_labels_of_the_command_line(real_data: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("monailabel.client.client", reason="monailabel is not installed")
    scan, mask = real_data / "ct_mr" / "example_ct_sm.nii.gz", tmp_path / "mask.nii.gz"
    model = named_model(tmp_path / "models", "edges", patch=(64, 64, 32), overlap=0)
    app(args=["segment", str(scan), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    with running_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "edges", "--monailabel") as server:
        client = module.MONAILabelClient(server.url, tmpdir=str(tmp_path / "answers"))
        assert not client.auth_enabled()
        session = client.create_session(str(scan))["session_id"]
        answer, told = client.infer("edges:1.0.0", "", {}, session_id=session)
    expected = nib.load(mask)
    assert list(told["label_names"].values()) == [1]
    np.testing.assert_array_equal(np.asarray(nib.load(answer).dataobj), np.asarray(expected.dataobj))
    np.testing.assert_array_equal(nib.load(answer).affine, expected.affine)

"""Clients generated from the document, in Python and TypeScript, segment a real CT as the command line does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.entrypoints.cli.main import app

from tests.rest.conftest import named_model
from tests.rest.serving import running_server
from tests.rest.test_generated_client import segmented_by_generated_client
from tests.rest.test_typescript_client import segmented_by_typescript_client


@pytest.mark.parametrize("language", ["Python", "TypeScript"])
def test_a_generated_client_gets_the_labels_of_the_command_line(
    real_data: Path, tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, mask = real_data / "ct_mr" / "example_ct_sm.nii.gz", tmp_path / "expected.nii.gz"
    model = named_model(tmp_path / "models", "edges", patch=(64, 64, 32), overlap=0)
    app(args=["segment", str(scan), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    arguments = ("--models", str(tmp_path / "models"), "-m", "edges")
    with running_server(tmp_path, *arguments) as server, server.client() as http:
        if language == "Python":
            content = segmented_by_generated_client(server, http, scan, tmp_path, monkeypatch)
        else:
            content = segmented_by_typescript_client(server, http, scan, tmp_path)
    (tmp_path / "found.nii.gz").write_bytes(content)
    found, expected = nib.load(tmp_path / "found.nii.gz"), nib.load(mask)
    assert len(np.unique(np.asarray(expected.dataobj))) > 1
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_array_equal(found.affine, expected.affine)

"""A real CT goes from Orthanc to the node, and its mask comes back, by C-STORE and by STOW-RS."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from voxport.entrypoints.cli.main import app

from tests.dicom.network import running_node
from tests.dicom.orthanc import running_orthanc
from tests.real_data.writers import FORMATS
from tests.rest.conftest import named_model

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.mark.parametrize("by", ["C-STORE", "STOW-RS"])
def test_a_real_ct_of_orthanc_gets_the_labels_of_the_command_line(real_data: Path, tmp_path: Path, by: str) -> None:
    scan = nib.load(real_data / "ct_mr" / "example_ct_sm.nii.gz")
    series, _ = FORMATS["DICOM"].write(tmp_path, np.asarray(scan.dataobj)[np.newaxis], scan.affine, "mm")
    model, mask = named_model(tmp_path / "models", "edges", patch=(64, 64, 32), overlap=0), tmp_path / "mask.dcm"
    app(args=["segment", str(series), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    expected = highdicom.seg.segread(mask)
    with running_orthanc(tmp_path) as orthanc:
        pacs = orthanc.settings if by == "C-STORE" else orthanc.web
        settings = {"peers": {"pacs": pacs}, "rules": [{"modality": "CT", "model": "edges", "send_to": "pacs"}]}
        with running_node(tmp_path, settings, "--models", "models", "-m", "edges") as node, orthanc.client() as client:
            for file in sorted(series.iterdir()):
                assert client.post("/instances", content=file.read_bytes()).status_code == 200
            voxport = {"AET": "VOXPORT", "Host": "127.0.0.1", "Port": node.port}
            assert client.put("/modalities/VOXPORT", json=voxport).status_code == 200
            (study,) = client.get("/studies").json()
            assert client.post("/modalities/VOXPORT/store", content=study).status_code == 200
            node.wait_until(lambda: "sent" in node.states())
            # the whole study once more, now with the segmentation in it: nothing follows
            assert client.post("/modalities/VOXPORT/store", content=study).status_code == 200
            assert node.stop() == 0
        (received,) = orthanc.files("SEG")
    found = highdicom.seg.segread(BytesIO(received))
    np.testing.assert_array_equal(found.pixel_array, expected.pixel_array)
    assert found.SOPInstanceUID == expected.SOPInstanceUID
    assert found.FrameOfReferenceUID == expected.FrameOfReferenceUID

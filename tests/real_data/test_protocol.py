"""The Open Inference Protocol's client segments a real volume as the command line does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import tritonclient.http as triton
from voxport.entrypoints.cli.main import app

from tests.rest.conftest import named_model
from tests.rest.serving import running_server


def test_a_real_ct_gets_the_labels_of_the_command_line_as_json_and_as_binary(real_data: Path, tmp_path: Path) -> None:
    scan, mask = real_data / "ct_mr" / "example_ct_sm.nii.gz", tmp_path / "mask.nii.gz"
    model = named_model(tmp_path / "models", "edges", patch=(64, 64, 32), overlap=0)
    app(args=["segment", str(scan), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    image = nib.load(scan)
    values = np.asarray(image.dataobj, np.float32)
    unit = {"mm": "mm", "micron": "um"}.get(image.header.get_xyzt_units()[0], "unknown")
    parameters = {"affine": ",".join(repr(float(value)) for value in image.affine.ravel()), "unit": unit}
    with (
        running_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "edges") as server,
        triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=300) as client,
    ):
        for binary in (False, True):
            volume = triton.InferInput("volume", list(values.shape), "FP32")
            volume.set_data_from_numpy(values, binary_data=binary)
            wanted = [triton.InferRequestedOutput("labels", binary_data=binary)]
            found = client.infer("edges", [volume], outputs=wanted, parameters=parameters)
            labels = found.as_numpy("labels")
            assert len(np.unique(labels)) > 1
            np.testing.assert_array_equal(labels, np.asarray(nib.load(mask).dataobj))

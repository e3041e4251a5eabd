"""From a checkpoint to labels over HTTP: the network that was trained is the network that answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
import torch
from voxport.adapters.models.onnx_files import OnnxModelFiles

from .exporting import Exported, export_fresh, noise
from .serving import Server, running_server


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_fresh(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def fresh(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("fresh"), "-m", str(exported.model)) as server:
        yield server


def test_onnx_export_creates_file(exported: Exported) -> None:
    model = OnnxModelFiles().read(exported.model)
    assert model.card.reference == "fresh:1.0.0"
    assert model.card.parity is not None
    assert model.card.parity.certifies("onnx", "fp32")


def test_onnx_output_shape_matches_pytorch(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.model)
    for shape in ((1, 1, 32, 32, 16), (2, 1, 24, 40, 8)):
        batch = np.random.default_rng(0).random(shape, np.float32)
        (logits,) = session.run(None, {session.get_inputs()[0].name: batch})
        with torch.inference_mode():
            wanted = exported.network(torch.from_numpy(batch)).numpy()
        assert logits.shape == wanted.shape
        np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_onnx_roundtrip_inference(exported: Exported, fresh: Server) -> None:
    """The served file is a file elsewhere, named by its path, and is the default beside the bundled model."""
    with fresh.client() as http:
        listed = http.get("/v1/models").json()
        assert listed["default"] == "fresh:1.0.0"
        answer = http.post("/predict", json={"volume": noise().tolist(), "probabilities": True}).json()
    probabilities = np.array(answer["probabilities"])
    assert probabilities.shape == (3, 32, 32, 16)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    agreement = (np.array(answer["segmentation"]) == exported.labels(noise())).mean()
    assert agreement >= 0.9999


def test_export_serve_predict_roundtrip(exported: Exported, fresh: Server) -> None:
    """Checkpoint, export, service, labels: those of the checkpoint's own network; and no PyTorch in the service."""
    with fresh.client() as http:
        answer = http.post("/predict", json={"volume": noise().tolist()})
    assert answer.status_code == 200, answer.text
    assert (np.array(answer.json()["segmentation"]) == exported.labels(noise())).mean() >= 0.9999
    assert set(np.unique(answer.json()["segmentation"])) <= {0, 1, 2}
    assert torch_libraries(fresh) == []


def torch_libraries(server: Server) -> list[str]:
    """Files of PyTorch that the server's processes have mapped."""
    processes = [psutil.Process(server.process.pid)]
    processes += processes[0].children(recursive=True)
    lines = [line for p in processes for line in Path(f"/proc/{p.pid}/maps").read_text(encoding="utf-8").splitlines()]
    assert any("openvino" in line for line in lines)
    return [line for line in lines if "/site-packages/torch/" in line]

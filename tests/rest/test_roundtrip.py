"""From a checkpoint to labels over HTTP: the network that was trained is the network that answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
import torch
import yaml
from monai.networks.nets.segresnet import SegResNet
from numpy.typing import NDArray
from voxport.adapters.onnx_files import OnnxModelFiles

from tests.cli.conftest import environment

from .serving import Server, running_server

CARD = {
    "schema": "voxport/model-card/1",
    "name": "fresh",
    "version": "1.0.0",
    "description": "A SegResNet with random weights.",
    "licence": "Apache-2.0",
    "intended_use": "tests",
    "input": {"axes": "XYZ", "channels": [{"name": "any", "source": 0}], "intensity": [{"rescale": [0, 1]}]},
    "tiling": {"patch": [32, 32, 16], "divisor": 8, "overlap": 0.5},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "one"}, {"value": 2, "name": "two"}]},
}


@dataclass(frozen=True)
class Exported:
    """A network, and the file that ``voxport export`` made of its checkpoint."""

    network: SegResNet
    model: Path

    def labels(self, volume: NDArray[Any]) -> NDArray[np.int64]:
        """What PyTorch says of a volume of one tile."""
        scaled = (volume - volume.min()) / (volume.max() - volume.min())
        with torch.inference_mode():
            scores = self.network(torch.from_numpy(scaled[None, None].astype(np.float32)))
        return np.asarray(scores[0].argmax(0).numpy())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(11)
    network = SegResNet(init_filters=8, in_channels=1, out_channels=3).eval()
    torch.save(network.state_dict(), folder / "checkpoint.pt")
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD))
    arguments = '{"init_filters": 8, "in_channels": 1, "out_channels": 3}'
    command = [sys.executable, "-m", "voxport", "export", "checkpoint.pt", "--card", "card.yaml", "-o", "fresh.onnx"]
    command += ["--network", "SegResNet", "--network-args", arguments]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, timeout=300, capture_output=True)
    return Exported(network, folder / "fresh.onnx")


@pytest.fixture(scope="module")
def fresh(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("fresh"), "-m", str(exported.model)) as server:
        yield server


def noise() -> NDArray[np.float32]:
    return np.random.default_rng(5).random((32, 32, 16), np.float32)


def test_onnx_export_creates_file(exported: Exported) -> None:
    model = OnnxModelFiles().read(exported.model)
    assert model.card.reference == "fresh:1.0.0"
    assert model.card.parity is not None
    assert model.card.parity.certifies("onnx", "fp32")


def test_onnx_output_shape_matches_pytorch(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.model)
    for shape in ((1, 1, 32, 32, 16), (2, 1, 24, 40, 8)):
        batch = np.random.default_rng(0).random(shape, np.float32)
        (scores,) = session.run(None, {session.get_inputs()[0].name: batch})
        with torch.inference_mode():
            wanted = exported.network(torch.from_numpy(batch)).numpy()
        assert scores.shape == wanted.shape
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


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
    lines = [line for p in processes for line in Path(f"/proc/{p.pid}/maps").read_text().splitlines()]
    assert any("onnxruntime" in line for line in lines)
    return [line for line in lines if "/site-packages/torch/" in line]

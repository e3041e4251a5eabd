"""OnnxQuantiser keeps the Quantiser contract; what it writes, both runtimes score alike."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from voxport.adapters.quantisers.onnx import OnnxQuantiser
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime
from voxport.ports.quantiser import Quantiser
from voxport.ports.runtime import RuntimeOptions
from voxport.testing.affine import Floats, affine_card, affine_model
from voxport.testing.quantiser import QuantiserContract

BUNDLED = Path(__file__).resolve().parents[2] / "src" / "bundled" / "two-photon-vessels-0.2.0.onnx"


class TestWithOnnxRuntime(QuantiserContract):
    def make_quantiser(self) -> Quantiser:
        return OnnxQuantiser()

    def infer(self, network: Path, batch: Floats) -> Floats:
        session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"image": batch})[0], np.float32)


class TestWithOpenvino(TestWithOnnxRuntime):
    def infer(self, network: Path, batch: Floats) -> Floats:
        runtime = open_openvino_runtime(
            affine_model(network, self.model.card), RuntimeOptions("int8"), OpenvinoSettings()
        )
        return runtime.infer(batch)


@pytest.fixture(scope="module")
def tile() -> Floats:
    return np.random.default_rng(0).random((1, 1, 32, 32, 16), np.float32)


@pytest.mark.parametrize(("spared", "layers"), [(0, 21), (2, 17), (10, 1), (11, 0)])
def test_the_outermost_convolutions_can_be_spared(tmp_path: Path, tile: Floats, spared: int, layers: int) -> None:
    """The bundled network has 21, with weights in half precision behind casts."""
    model, written = affine_model(BUNDLED, affine_card(1, 2)), tmp_path / "int8.onnx"
    assert OnnxQuantiser().quantise(model, [tile], written, spared=spared) == layers
    if layers:
        nodes = onnx.load(written).graph.node
        fed = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
        assert sum(node.op_type == "Conv" and node.input[1] in fed for node in nodes) == layers


def test_the_tools_say_nothing_and_leave_logging_as_it_was(
    tmp_path: Path, tile: Floats, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    level = logging.getLogger().level
    OnnxQuantiser().quantise(affine_model(BUNDLED, affine_card(1, 2)), [tile], tmp_path / "int8.onnx")
    assert (capfd.readouterr().out, capfd.readouterr().err) == ("", "")
    assert caplog.records == []
    assert logging.getLogger().level == level

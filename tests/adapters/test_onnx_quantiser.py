"""OnnxQuantiser keeps the Quantiser contract; both runtimes infer alike from the network that it writes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from voxport.adapters.quantisers.onnx import OnnxQuantiser, saturates
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime
from voxport.domain.errors import ModelError
from voxport.ports.quantiser import Quantiser
from voxport.ports.runtime import RuntimeOptions
from voxport.testing.affine import Floats, affine_card, affine_model
from voxport.testing.quantiser import QuantiserContract

LAYERS = 18


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


def saturating_logits(network: Path, batch: Floats) -> Floats:
    """Infer as processors without VNNI do: sums of two products of uint8 and int8 saturate at 16 bits."""
    graph = onnx.load(network).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (factor,), (scale,), (offset,), (held,) = (
        [name for name in stored if name.startswith("voxport_equal") and name.endswith(end)]
        for end in ("factor_0", "/0_scale", "/0_zero_point", "weights_quantized")
    )
    batch = batch * stored[factor]
    step, zero = stored[scale].item(), int(stored[offset].item())
    weights = stored[held].reshape(3, 2).astype(np.int64)
    quantised = np.clip(np.rint(batch / step) + zero, 0, 255).astype(np.int64)
    products = quantised[:, None] * weights[None, :, :, None, None, None]
    sums = np.clip(products.sum(axis=2), -(2**15), 2**15 - 1) - (zero * weights.sum(axis=1))[:, None, None, None]
    scales = (stored[held.replace("quantized", "scale")] * np.float32(step)).reshape(3, 1, 1, 1)
    biases = (stored["bias_quantized"] * stored["bias_quantized_scale"]).reshape(3, 1, 1, 1)
    return np.asarray((sums * scales + biases), np.float32)


class TestWithSumsThatSaturate(QuantiserContract):
    """7 bits keep the contract where 16 bits is all that a sum has."""

    def make_quantiser(self) -> Quantiser:
        return OnnxQuantiser(reduce_range=True)

    def infer(self, network: Path, batch: Floats) -> Floats:
        return saturating_logits(network, batch)

    def test_weights_of_eight_bits_do_not(self) -> None:
        """The largest pair of weights is 127 and 16: 255 x 143 = 36465."""
        next(OnnxQuantiser(reduce_range=False).quantise(self.model, self.inputs, self.destination))
        reduced = self.destination.with_name("reduced.onnx")
        next(self.quantiser.quantise(self.model, self.inputs, reduced))
        ones = np.ones_like(self.inputs[0])
        exact = np.array([-0.5 + 0.125, 2.25 - 3.0, 0.75 + 1.0])[:, None, None, None]
        assert np.abs(saturating_logits(reduced, ones) - exact).max() < 0.05
        assert np.abs(saturating_logits(self.destination, ones) - exact).max() > 0.3


def test_no_two_weights_of_a_reduced_range_saturate_a_sum(tmp_path: Path, network: Path, tile: Floats) -> None:
    """2 x 255 x 64 = 32640 is within 16 bits."""
    quantised = OnnxQuantiser(reduce_range=True)
    next(quantised.quantise(affine_model(network, affine_card(1, 2)), [tile], tmp_path / "int8.onnx"))
    stored = onnx.load(tmp_path / "int8.onnx").graph.initializer
    weights = [numpy_helper.to_array(tensor) for tensor in stored if tensor.name.endswith("_quantized")]
    largest = [int(np.abs(values.astype(int)).max()) for values in weights if values.dtype == np.int8]
    assert len(largest) == LAYERS
    assert 2 * 255 * max(largest) < 2**15


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "sse2 avx2 fma", True),
        ("AMD64", "avx2 avx512f avx512bw", True),
        ("x86_64", "avx2 avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx512f amx_int8", False),
        ("x86_64", None, True),
        ("aarch64", "asimd asimddp", False),
    ],
)
def test_x86_processors_without_vnni_get_a_reduced_range(
    tmp_path: Path, machine: str, flags: str | None, expected: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"model name\t: any\nflags\t\t: {flags}\nbugs\t\t: none\n", encoding="utf-8")
    assert saturates(machine, cpuinfo) is expected


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of convolutions, with weights in half precision behind casts, as exported files store them."""
    rng, nodes, weights, last = np.random.default_rng(5), [], [], "image"
    channels = [1, *[6] * (LAYERS - 1), 2]
    for layer in range(LAYERS):
        ins, outs = channels[layer : layer + 2]
        values = rng.normal(0, (2 / (27 * ins)) ** 0.5, (outs, ins, 3, 3, 3)).astype(np.float16)
        weights.append(numpy_helper.from_array(values, f"half{layer}"))
        nodes.append(helper.make_node("Cast", [f"half{layer}"], [f"weights{layer}"], to=TensorProto.FLOAT))
        made = "logits" if layer == LAYERS - 1 else f"made{layer}"
        nodes.append(helper.make_node("Conv", [last, f"weights{layer}"], [made], name=f"conv{layer}", pads=[1] * 6))
        last = made if made == "logits" else f"relu{layer}"
        nodes += [] if made == "logits" else [helper.make_node("Relu", [made], [last])]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "x", "y", "z"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "x", "y", "z"]),
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("chain") / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def tile() -> Floats:
    return np.random.default_rng(0).random((1, 1, 32, 32, 16), np.float32)


@pytest.mark.parametrize(("limit", "expected"), [("AVX2", True), ("avx512_core", True), ("AVX512_CORE_VNNI", False)])
def test_a_limit_of_onednn_counts_as_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2 avx512_vnni amx_int8\n", encoding="utf-8")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert saturates("x86_64", tmp_path / "cpuinfo") is expected


def quantised_layers(network: Path) -> set[str]:
    nodes = onnx.load(network).graph.node
    fed = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return {node.name for node in nodes if node.op_type == "Conv" and set(node.input) <= fed}


def test_a_share_of_the_multiplications_can_be_spared(tmp_path: Path, network: Path, tile: Floats) -> None:
    """The first has 6 of 594 times 27 a voxel, the last 12, the others 36: a quarter is these two and three more."""
    model, written = affine_model(network, affine_card(1, 2)), tmp_path / "int8.onnx"
    before: set[str] | None = None
    files = OnnxQuantiser().quantise(model, [tile], written, spared=(0, 0.25, 0.9))
    for layers, expected in zip(files, (18, 13, 2), strict=True):
        chosen = quantised_layers(written)
        assert layers == len(chosen) == expected
        assert before is None or chosen < before
        before = chosen


def test_a_quantised_network_is_not_quantised_again(tmp_path: Path, network: Path, tile: Floats) -> None:
    card, written = affine_card(1, 2), tmp_path / "int8.onnx"
    next(OnnxQuantiser().quantise(affine_model(network, card), [tile], written))
    quantised = affine_model(written, card)
    with pytest.raises(ModelError, match="integers"):
        next(OnnxQuantiser().quantise(quantised, [tile], tmp_path / "again.onnx"))
    assert not (tmp_path / "again.onnx").exists()


def test_the_convolutions_that_change_the_result_most_are_spared(tmp_path: Path) -> None:
    """One convolution multiplies by 1, the other by 0.01; the input spans a thousand, and then two.

    The input's edges are fixed, and longer than what sensitivities are measured on.
    """

    def convolution(name: str, source: str, factor: float) -> list[onnx.NodeProto]:
        weights = numpy_helper.from_array(np.full((1, 1, 1, 1, 1), factor, np.float32))
        return [
            helper.make_node("Constant", [], [f"{name}_weights"], value=weights),
            helper.make_node("Conv", [source, f"{name}_weights"], [f"{name}_result"], name=name),
        ]

    shape = [1, 1, 72, 8, 8]
    nodes = convolution("coarse", "image", 1.0)
    nodes += [helper.make_node("Tanh", ["image"], ["bounded"])]
    nodes += convolution("fine", "bounded", 0.01)
    nodes += [helper.make_node("Add", ["coarse_result", "fine_result"], ["logits"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "two.onnx"
    )
    batch = np.random.default_rng(0).uniform(-500, 500, (1, 1, 72, 8, 8)).astype(np.float32)
    model, written = affine_model(tmp_path / "two.onnx", affine_card(1, 1)), tmp_path / "int8.onnx"
    assert list(OnnxQuantiser().quantise(model, [batch], written, spared=(0.5,))) == [1]
    assert quantised_layers(written) == {"fine"}


def test_both_runtimes_infer_alike_where_several_nodes_read_a_convolution(tmp_path: Path) -> None:
    """A residual block: without ``_guard`` the logits of OpenVINO are wrong by several units."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    weights = {"first": random.normal(0, 1, (16, 1, 3, 3, 3)), "second": random.normal(0, 0.1, (16, 16, 3, 3, 3))}
    stored = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    stored += [
        numpy_helper.from_array(np.ones(8, np.float32), "scale"),
        numpy_helper.from_array(np.zeros(8, np.float32), "bias"),
    ]
    stored += [numpy_helper.from_array(np.array([0, 8, -1], np.int64), "grouped")]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["mapped"], name="first", pads=[1] * 6),
        helper.make_node("Reshape", ["mapped", "grouped"], ["groups"]),
        helper.make_node("InstanceNormalization", ["groups", "scale", "bias"], ["normal"]),
        helper.make_node("Shape", ["mapped"], ["shape"]),
        helper.make_node("Reshape", ["normal", "shape"], ["whole"]),
        helper.make_node("Relu", ["whole"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["refined"], name="second", pads=[1] * 6),
        helper.make_node("Add", ["mapped", "refined"], ["logits"]),
    ]
    shapes = [None, 1, None, None, None], [None, 16, None, None, None]
    ends = [
        helper.make_tensor_value_info(*end)
        for end in zip(("image", "logits"), (TensorProto.FLOAT,) * 2, shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], stored)
    path, written = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    batch = random.random((1, 1, 16, 16, 16), np.float32)
    model = affine_model(path, affine_card(1, 16))
    next(OnnxQuantiser(reduce_range=True).quantise(model, [batch], written))
    exact, by_onnx = (
        ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": batch})[0]
        for file in (path, written)
    )
    quantised = affine_model(written, model.card)
    by_openvino = open_openvino_runtime(quantised, RuntimeOptions("int8"), OpenvinoSettings()).infer(batch)
    for found in (by_onnx, by_openvino):
        assert np.abs(found - exact).mean() < 0.02 * exact.std()


def test_the_tools_say_nothing_and_leave_logging_as_it_was(
    tmp_path: Path, network: Path, tile: Floats, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    level = logging.getLogger().level
    next(OnnxQuantiser().quantise(affine_model(network, affine_card(1, 2)), [tile], tmp_path / "int8.onnx"))
    assert (capfd.readouterr().out, capfd.readouterr().err) == ("", "")
    assert caplog.records == []
    assert logging.getLogger().level == level

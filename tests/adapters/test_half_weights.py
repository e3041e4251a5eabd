"""Weights that are halves already are stored as halves, and nothing else about a model changes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.exporters.torch import TorchExporter, graph
from voxport.adapters.exporters.torch.graph import FEWEST_ELEMENTS, halve_weights
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.adapters.runtimes.torch import load_network, open_torch_runtime
from voxport.domain.inference.patches import Tiling
from voxport.ports.exporter import Checkpoint
from voxport.ports.runtime import RuntimeOptions
from voxport.services.models.export import ExportPorts, export_model
from voxport.testing.affine import affine_card
from voxport.testing.progress import RecordingProgress

Floats = NDArray[np.float32]

SEGRESNET = {"_target_": "SegResNet", "init_filters": 8, "out_channels": 2, "blocks_down": [1, 1], "blocks_up": [1]}
LEVELS = [
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
]
# Of each kind one that float16 lacks: too fine, too small, too large, and what is not finite.
UNREPRESENTABLE = [0.1, 1 + 2.0**-11, 2.0**-25, -1e-45, 65520.0, -1e30, np.inf, -np.inf, np.nan]


def finite(bits: NDArray[np.uint16]) -> Floats:
    """The halves of these bits in float32; an infinity or NaN becomes the finite half of half its exponent."""
    special = bits & 0x7C00 == 0x7C00
    return np.where(special, bits ^ 0x4000, bits).astype(np.uint16).view(np.float16).astype(np.float32)


def weights(size: int = FEWEST_ELEMENTS) -> Floats:
    """Halves of many sizes and both signs, zeros and subnormals among them."""
    return finite(np.random.default_rng(size).integers(0, 2**16, size, np.uint16))


@st.composite
def exact_weights(draw: st.DrawFn) -> Floats:
    """Arrays of one to five axes whose values are all halves, tiled from a few dozen."""
    bits = draw(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
    inner = draw(st.lists(st.integers(1, 4), max_size=4))
    rows = -(-FEWEST_ELEMENTS // int(np.prod(inner, dtype=int))) + draw(st.integers(0, 3))
    return np.resize(finite(np.array(bits, np.uint16)), (rows, *inner))


def model_of(
    initializers: Mapping[str, NDArray[Any]],
    nodes: list[onnx.NodeProto] | None = None,
    *,
    inputs: tuple[str, ...] = ("image",),
    outputs: tuple[str, ...] = ("scores",),
) -> onnx.ModelProto:
    """A valid model; without ``nodes``, ``scores`` is the initializer ``w`` times ``image``."""
    shape = next(iter(initializers.values())).shape
    shapes = {"image": (1,), "w": shape, "scores": shape}
    proto = helper.make_graph(
        nodes or [helper.make_node("Mul", ["w", "image"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in initializers.items()],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that went through ``halve_weights``, checked."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    halve_weights(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def stored(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(model: onnx.ModelProto | Path, image: Floats, level: Any = LEVELS[-1]) -> list[Floats]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    logits: list[Floats] = session.run(None, {"image": image})
    return logits


def assert_same_bits(found: Floats, expected: Floats) -> None:
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@given(exact_weights())
def test_exact_weights_are_stored_in_half_the_bytes_and_come_back_bit_for_bit(values: Floats) -> None:
    model = halved(model_of({"w": values}))
    ((name, halves),) = stored(model).items()
    assert halves.dtype == np.float16
    assert_same_bits(halves.astype(np.float32), values)
    cast, user = model.graph.node
    assert (cast.op_type, list(cast.input), list(cast.output)) == ("Cast", [name], ["w"])
    assert helper.get_attribute_value(cast.attribute[0]) == TensorProto.FLOAT
    assert list(user.input) == ["w", "image"]


@given(exact_weights(), st.data())
def test_one_value_that_is_no_half_leaves_the_tensor_as_it_was(values: Floats, data: st.DataObject) -> None:
    values.flat[data.draw(st.integers(0, values.size - 1))] = data.draw(st.sampled_from(UNREPRESENTABLE))
    model = model_of({"w": values})
    assert halved(model) == model


@pytest.mark.parametrize("level", LEVELS)
def test_every_half_there_is_comes_back_from_onnx_runtime_bit_for_bit(level: Any) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    every = bits[bits & 0x7C00 != 0x7C00].view(np.float16).astype(np.float32)
    model = halved(model_of({"w": every}))
    assert stored(model)["w.half"].dtype == np.float16
    (logits,) = run(model, np.ones(1, np.float32), level)
    assert_same_bits(logits, every)


def test_tensors_are_judged_one_by_one_and_small_ones_and_other_types_stay() -> None:
    values = {
        "exact": weights(),
        "inexact": weights() + np.float32(0.1),
        "small": weights(FEWEST_ELEMENTS - 1),
        "double": weights().astype(np.float64),
        "integer": np.zeros(FEWEST_ELEMENTS, np.int32),
    }
    found = stored(halved(model_of(values, [helper.make_node("Mul", ["exact", "image"], ["scores"])])))
    assert {name: array.dtype for name, array in found.items()} == {
        "exact.half": np.float16,
        "inexact": np.float32,
        "small": np.float32,
        "double": np.float64,
        "integer": np.int32,
    }


def branch(*nodes: onnx.NodeProto, initializers: Mapping[str, Floats] | None = None) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(values, name) for name, values in (initializers or {}).items()]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [FEWEST_ELEMENTS])
    return helper.make_graph(list(nodes), "branch", [], [output], tensors)


def branching() -> onnx.ModelProto:
    """``w`` is used twice in the graph and in a branch; ``v`` is a branch's own, and a branch has a ``w.half``."""
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["positive"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["positive"],
            ["chosen"],
            then_branch=branch(helper.make_node("Neg", ["w"], ["w.half"])),
            else_branch=branch(helper.make_node("Neg", ["v"], ["w.half2"]), initializers={"v": weights()}),
        ),
        helper.make_node("Mul", ["w", "image"], ["product"]),
        helper.make_node("Add", ["product", "w"], ["twice"]),
        helper.make_node("Add", ["twice", "chosen"], ["scores"]),
    ]
    return model_of({"w": weights()}, nodes)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [0, 3])
def test_a_tensor_of_several_nodes_and_branches_serves_them_all(level: Any, value: int) -> None:
    image = np.full(1, value, np.float32)
    (before,), (after,) = run(branching(), image, level), run(halved(branching()), image, level)
    assert_same_bits(after, before)


def test_a_name_is_new_in_the_whole_model_and_branches_keep_their_tensors() -> None:
    model = halved(branching())
    assert list(stored(model)) == ["w.half3"]
    assert model.graph.node[0].name == "w.half3"
    assert list(model.graph.node)[1:] == list(branching().graph.node)


@pytest.mark.parametrize("role", ["inputs", "outputs"])
def test_an_initializer_that_is_an_input_or_output_of_the_graph_stays(role: str) -> None:
    inputs = ("image", "w") if role == "inputs" else ("image",)
    outputs = ("scores", "w") if role == "outputs" else ("scores",)
    model = model_of({"w": weights()}, inputs=inputs, outputs=outputs)
    assert halved(model) == model


def test_weights_in_another_file_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of({"w": weights()}), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    before = model.SerializeToString(deterministic=True)
    halve_weights(model)
    assert model.SerializeToString(deterministic=True) == before


def state_of(description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    from monai.networks.nets.segresnet import SegResNet

    torch.manual_seed(0)
    arguments = {key: value for key, value in description.items() if key != "_target_"}
    state: dict[str, torch.Tensor] = SegResNet(**arguments).state_dict()
    return state


def exported(state: Mapping[str, torch.Tensor], folder: Path) -> Path:
    torch.save(dict(state), folder / "network.pt")
    card = affine_card(1, 2, tiling=Tiling((None, None, None), divisor=2))
    checkpoint = Checkpoint(folder / "network.pt", SEGRESNET)
    return TorchExporter(load_network).export(checkpoint, card, folder / "model.onnx").path


def unhalved(state: Mapping[str, torch.Tensor], folder: Path) -> Path:
    """The file that ``exported`` would write if all weights were stored in 32 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "halve_weights", lambda _: None)
        return exported(state, folder)


def halves_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() for key, value in state.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of a checkpoint in halves."""
    return exported(halves_of(state_of(SEGRESNET)), tmp_path_factory.mktemp("small"))


@pytest.mark.no_cover  # the tracer would double the time that PyTorch takes
def test_a_network_of_halves_takes_half_the_room_and_scores_the_same_bit_for_bit(tmp_path: Path, small: Path) -> None:
    large = unhalved({key: value.float() for key, value in halves_of(state_of(SEGRESNET)).items()}, tmp_path)
    saved = large.stat().st_size - small.stat().st_size
    assert saved > 0.4 * large.stat().st_size
    for shape in ((1, 1, 8, 12, 10), (2, 1, 4, 2, 16)):
        image = np.random.default_rng(0).standard_normal(shape, np.float32)
        for level in LEVELS:
            (expected,), (found,) = run(large, image, level), run(small, image, level)
            assert_same_bits(found, expected)


def test_onnx_runtime_folds_the_casts_when_it_loads_the_file(tmp_path: Path, small: Path) -> None:
    def halves_in(path: Path) -> bool:
        loaded = onnx.load(path).graph
        return any(t.data_type == TensorProto.FLOAT16 for t in loaded.initializer)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[1]
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
    assert halves_in(small)
    assert not halves_in(tmp_path / "optimised.onnx")


@pytest.mark.no_cover
def test_an_ordinary_network_is_stored_as_it_was(tmp_path: Path) -> None:
    state = state_of(SEGRESNET)
    before = unhalved(state, tmp_path).read_bytes()
    assert exported(state, tmp_path).read_bytes() == before


@pytest.mark.no_cover
def test_a_checkpoint_of_halves_computes_in_float32_and_is_certified(tmp_path: Path) -> None:
    source = tmp_path / "network.pt"
    torch.save(halves_of(state_of(SEGRESNET)), source)
    loaded = load_network(source, SEGRESNET)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    files = OnnxModelFiles()
    ports = ExportPorts(
        TorchExporter(load_network),
        files,
        LocalFiles(),
        open_torch_runtime,
        partial(open_onnx_runtime, settings=OnnxRuntimeSettings(threads=1)),
    )
    card = affine_card(1, 2, tiling=Tiling((None, None, None), divisor=2))
    destination = tmp_path / "model.onnx"
    done = export_model(Checkpoint(source, SEGRESNET), card, destination, RecordingProgress(), ports=ports)
    assert done.verification.entry.parity.label_agreement == 1.0
    assert done.verification.entry.parity.max_probability_difference < 1e-6
    model = files.read(destination)
    assert model.card.parity is not None
    assert model.card.parity.weights_sha256 == model.weights_sha256 == done.model.weights_sha256
    runtime = open_onnx_runtime(model, RuntimeOptions(), OnnxRuntimeSettings(threads=1))
    assert runtime.precision == "fp32"
    assert runtime.infer(np.zeros((1, 1, 4, 4, 4), np.float32)).dtype == np.float32

"""Post-training quantisation with ONNX Runtime's own tools; OpenVINO runs the result in int8 too.

Only what enters a convolution is quantised, with one range for all of its channels (`equalise`). Quantised results as
well cost accuracy and two more passes over each feature map. Group normalisation is written without reshapes first, so
that OpenVINO keeps its layout from one convolution to the next: a SegResNet takes 0.28 s, and 0.46 s in bf16.
"""

from __future__ import annotations

import logging
import math
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ....domain.errors import ModelError
from ....ports.model import Model
from ....ports.quantiser import Quantiser
from ...group_norms import drop_unused, rewrite_group_norms
from ...instructions import limited_below_wide_sums
from .equalising import equalise
from .inferring import infer, silent

_QUANTISED = "Conv"
_STEPS = ("QuantizeLinear", "DequantizeLinear")
# Instructions that add products of 8 bits in 32 bits.
_WIDE_SUMS = {"avx512_vnni", "avx_vnni", "amx_int8"}
# Sensitivities are measured on a part of this edge, in voxels: one run a convolution.
_PART = 64
# No value of a network that works is beyond it; see `_guard`.
_HUGE = 3e38

Floats = NDArray[np.float32]


class OnnxQuantiser(Quantiser):
    """Quantiser to QDQ form: weights per channel, activations by the least and greatest value of the calibration.

    Args:
        reduce_range: give weights 7 bits instead of 8. By default, on x86 processors without VNNI instructions: these
            add the products of two unsigned activations and two signed weights in 16 bits, which saturate at 32767.
            With 8 bits a sum reaches 2 x 255 x 127 = 64770, with 7 bits 2 x 255 x 64 = 32640.
    """

    def __init__(self, reduce_range: bool | None = None) -> None:
        self._reduce_range = saturates() if reduce_range is None else reduce_range

    def quantise(
        self, model: Model, inputs: Sequence[Floats], destination: Path, *, spared: Sequence[float] = (0.0,)
    ) -> Iterator[int]:
        _check_floats(model)
        with _explained(model):
            quantised = self._quantised(model, inputs)
        written = None
        for share in spared:
            with _explained(model):
                left = quantised.spared(share)
                if len(left) == len(quantised.layers) or left == written:
                    continue
                onnx.save_model(quantised.without(left), destination)
                written = left
            yield len(quantised.layers) - len(left)

    def _quantised(self, model: Model, inputs: Sequence[Floats]) -> _Quantised:
        """Quantise all convolutions of a model."""
        with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
            floats, result = Path(folder) / "floats.onnx", Path(folder) / "int8.onnx"
            name = _fold(model.path, floats)
            network = onnx.load_model(floats)
            layers = _named_layers(network.graph)
            # without its ratio: what deviates by less than a 17th of its mean is lost in the steps of 8 bits anyway
            rewrite_group_norms(network)
            _guard(network.graph, layers)
            if layers:
                equal = onnx.ModelProto()
                equal.CopyFrom(network)
                equalise(equal, layers, {name: inputs})
                onnx.save_model(equal, floats)
                _quantise(floats, result, _Inputs(name, inputs), layers, self._reduce_range)
            part = _part(inputs[0], math.lcm(*model.card.tiling.divisors), network)
            return _Quantised(network, onnx.load_model(result) if layers else network, layers, {name: part})


@dataclass
class _Quantised:
    """A network in floats and in int8, its convolutions by name, and an input to compare both with."""

    floats: onnx.ModelProto
    network: onnx.ModelProto
    layers: list[str]
    part: dict[str, Floats]

    def spared(self, share: float) -> list[str]:
        """Return the convolutions that harm most for what they save, with this share of all multiplications at most."""
        chosen: list[str] = []
        for layer in self._most_harmful if share else ():
            if self._work[layer] <= share:
                chosen.append(layer)
                share -= self._work[layer]
        return chosen

    @cached_property
    def _most_harmful(self) -> list[str]:
        """The convolutions, those first that alone in int8 change the result most for each multiplication."""
        exact = infer(self.floats, self.part)[0]

        def harm(layer: str) -> float:
            found = infer(self.without([other for other in self.layers if other != layer]), self.part)[0]
            change = float(np.square(found - exact, dtype=np.float64).mean())
            return change / self._work[layer]

        return sorted(self.layers, key=harm, reverse=True)

    @cached_property
    def _work(self) -> dict[str, float]:
        """The share of each convolution in all multiplications."""
        nodes = [node for node in self.floats.graph.node if node.name in self.layers]
        sizes = {tensor.name: math.prod(tensor.dims) for tensor in self.floats.graph.initializer}
        shapes = [helper.make_node("Shape", node.output[:1], [f"{node.name}/shape"]) for node in nodes]
        voxels = [math.prod(map(int, shape[2:])) for shape in infer(self.floats, self.part, shapes)]
        products = [count * sizes[node.input[1]] for node, count in zip(nodes, voxels, strict=True)]
        return {node.name: count / sum(products) for node, count in zip(nodes, products, strict=True)}

    def without(self, layers: Sequence[str]) -> onnx.ModelProto:
        """Return the quantised network with some convolutions in floats."""
        network = onnx.ModelProto()
        network.CopyFrom(self.network)
        exact = {node.name: node.input for node in self.floats.graph.node if node.name in layers}
        weights = {tensor.name: tensor for tensor in self.floats.graph.initializer}
        needed = {name for inputs in exact.values() for name in inputs if name in weights}
        for node in network.graph.node:
            if node.name in exact:
                node.input[:] = [f"{name}_in_floats" if name in needed else name for name in exact[node.name]]
        for name in sorted(needed):
            network.graph.initializer.append(weights[name])
            network.graph.initializer[-1].name = f"{name}_in_floats"
        drop_unused(network.graph, (*_STEPS, "Mul", "Concat"))
        return network


def _check_floats(model: Model) -> None:
    """Raise ModelError for a network that computes in integers already."""
    with _explained(model):
        nodes = onnx.load_model(model.path, load_external_data=False).graph.node
    if any(node.op_type == _STEPS[0] for node in nodes):
        do = "use it in fp32: runtimes compute its integers in that precision"
        raise ModelError(model.path.name, expected="a network in floats", got="one in integers", do=do)


@contextmanager
def _explained(model: Model) -> Iterator[None]:
    """Raise ModelError where the tools fail."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the tools raise many kinds
        raise ModelError(
            model.path.name,
            expected="a network that can be quantised",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            do="use fp32 or bf16",
        ) from None


def saturates(machine: str | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this processor may add 8-bit products in 16 bits: x86 without VNNI instructions, or limited."""
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64"):
        return False
    if limited_below_wide_sums():
        return True
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return _WIDE_SUMS.isdisjoint(flags)


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: Sequence[NDArray[np.float32]]) -> None:
        self._name, self._inputs = name, iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._inputs, None)
        return None if batch is None else {self._name: np.ascontiguousarray(batch)}


def _fold(source: Path, destination: Path) -> str:
    """Write the network with constants folded (weights may be stored in half precision); return its input's name."""
    options = silent()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(destination)
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return str(session.get_inputs()[0].name)


def _named_layers(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the convolutions with constant weights; give those a name that have none of their own."""
    constants, names = {tensor.name for tensor in graph.initializer}, [node.name for node in graph.node]
    layers = [node for node in graph.node if node.op_type == _QUANTISED and node.input[1] in constants]
    for number, node in enumerate(layers):
        if not node.name or names.count(node.name) > 1:
            node.name = f"voxport_convolution_{number}"
    return [node.name for node in layers]


def _part(batch: Floats, divisor: int, network: onnx.ModelProto) -> Floats:
    """Return the middle of a batch: at most `_PART` voxels an edge, but one divisor, or what the network fixes."""
    fixed = [dim.dim_value > 0 for dim in network.graph.input[0].type.tensor_type.shape.dim]
    edge = max(_PART // divisor, 1) * divisor
    edges = [whole if is_fixed else min(edge, whole) for whole, is_fixed in zip(batch.shape, fixed, strict=True)][2:]
    starts = [(whole - edge) // 2 for whole, edge in zip(batch.shape[2:], edges, strict=True)]
    cuts = [slice(start, start + edge) for start, edge in zip(starts, edges, strict=True)]
    return np.ascontiguousarray(batch[(slice(None), slice(None), *cuts)])


def _guard(graph: onnx.GraphProto, layers: Sequence[str]) -> None:
    """Clip results that several nodes read at a value that none has.

    OpenVINO 2026.4 leaves the scale of a quantised convolution out for some of the readers, and the result is wrong by
    several units. It does not where something stands between, and a clip becomes a part of the convolution.
    """
    readers = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
    shared = {name for name in readers if readers.count(name) > 1}
    bounds = [f"voxport_{side}" for side in ("least", "greatest")]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.name in layers and node.output[0] in shared:
            result, node.output[0] = node.output[0], f"{node.output[0]}_unclipped"
            nodes.append(helper.make_node("Clip", [node.output[0], *bounds], [result], name=f"{node.name}_clip"))
    if len(nodes) > len(graph.node):
        values = zip(bounds, (-_HUGE, _HUGE), strict=True)
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values
        )
        del graph.node[:]
        graph.node.extend(nodes)


def _quantise(source: Path, destination: Path, inputs: _Inputs, nodes: Sequence[str], reduce_range: bool) -> None:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it logs advice to the root logger
    try:
        quantize_static(
            str(source),
            str(destination),
            inputs,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[_QUANTISED],
            nodes_to_quantize=list(nodes),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_providers=["CPUExecutionProvider"],
            extra_options={"OpTypesToExcludeOutputQuantization": [_QUANTISED]},
        )
    finally:
        logging.getLogger().setLevel(level)

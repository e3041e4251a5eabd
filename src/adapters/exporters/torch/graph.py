"""Writing an ONNX graph, with weights in 8 or 16 bits where that loses nothing, and comparing it with the network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....domain.geometry.grid import Shape3
from .integers import make_fake_quantisation_traceable, store_integers

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 20
_FORM: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"], "opset_version": OPSET}
_LARGEST_EDGE = 2**16
# Relative to the largest logit. A fixed size in the graph shifts whole regions; rounding stays below 1e-5.
_TOLERANCE = 1e-3
_ONNX_RUNTIME_SILENT = 4

Shape5 = tuple[int, int, int, int, int]
# With fewer, the name and the node of the Cast take about as much as they save.
FEWEST_ELEMENTS = 1024


def write_graph(network: torch.nn.Module, shape: Shape5, path: Path, *, divisors: Shape3 | None) -> None:
    """Export with an example of ``shape``; spatial axes are dynamic in multiples of ``divisors``, fixed for None."""
    import onnx
    import torch

    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _check_logits(network(example), shape)
        if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
            _write_torchscript(network, example, path, dynamic=divisors is not None)
        else:
            _write_exported(network, example, path, divisors)
    model = onnx.load(path)
    _tidy(model)
    store_integers(model)
    halve_weights(model)
    onnx.save(model, path)


def check_against(network: torch.nn.Module, shape: Shape5, path: Path, *, dynamic: bool) -> None:
    """Raise ValueError if network and file differ on an input of ``shape``.

    A graph with dynamic axes can still contain the example's sizes, as in scripted networks that resize.
    """
    import onnx
    import onnxruntime
    import torch

    model = onnx.load(path)
    onnx.checker.check_model(model)
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if dynamic and not all(sides[axis].dim_param for axis in (0, 2, 3, 4)):
        raise ValueError("an axis became fixed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONNX_RUNTIME_SILENT
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image).numpy()
    (got,) = session.run(["scores"], {"image": image.numpy()})
    if got.shape != expected.shape:
        raise ValueError(f"at {shape} it gives {got.shape} instead of {expected.shape}")
    difference = float(np.abs(got - expected).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ValueError(f"at {shape} its logits are off by {difference:.2g}")


def _check_logits(logits: object, shape: Shape5) -> None:
    import torch

    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"it gives a {type(logits).__name__} instead of one tensor")
    if logits.dtype != torch.float32 or (logits.shape[0], *logits.shape[2:]) != (shape[0], *shape[2:]):
        got = f"{str(logits.dtype).removeprefix('torch.')} {tuple(logits.shape)}"
        raise ValueError(f"from {shape} it gives {got} instead of float32 on the same grid")


def _write_exported(network: torch.nn.Module, example: torch.Tensor, path: Path, divisors: Shape3 | None) -> None:
    import torch
    from torch.export import Dim

    axes: dict[int, Dim] = {0: Dim("n", min=1, max=_LARGEST_EDGE)}
    for axis, divisor in enumerate(divisors or (), 2):
        axes[axis] = divisor * Dim(f"k{axis}", min=1, max=_LARGEST_EDGE // divisor)
    make_fake_quantisation_traceable()
    # torch.onnx.export would retry with slower strategies that fail too.
    program = torch.export.export(network, (example,), dynamic_shapes=(axes,), strict=False)
    torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False, **_FORM)


def _write_torchscript(network: torch.nn.Module, example: torch.Tensor, path: Path, *, dynamic: bool) -> None:
    import torch

    if not isinstance(network, torch.jit.ScriptModule):  # one output of a scripted network
        network = torch.jit.trace(network, example)  # type: ignore[no-untyped-call]
    axes = {0: "n"} | ({2: "i", 3: "j", 4: "k"} if dynamic else {})
    dynamic_axes = {"image": axes, "scores": axes}
    # torch.export refuses a ScriptModule.
    torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=dynamic_axes, **_FORM)


def _tidy(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, such as stack traces with local paths."""
    for owner in (model, model.graph, *model.functions):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
        if owner is not model:
            _tidy_nodes(owner)


def _tidy_nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    import onnx

    for item in (*graph.node, *graph.value_info, *getattr(graph, "input", ()), *getattr(graph, "initializer", ())):
        if not isinstance(item, str):
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _tidy_nodes(attribute.g)


def halve_weights(model: onnx.ModelProto) -> None:
    """Store float32 initializers as float16, each followed by a Cast to float32 under the old name.

    The graph still computes in float32; runtimes fold the Casts on loading. Works in place. Skips tensors with a value
    that is not exact in float16, tensors of fewer than FEWEST_ELEMENTS elements, and initializers that are also inputs
    or outputs, external, or in a subgraph.

    Args:
        model: a valid model with ONNX's own operators; it stays valid.
    """
    import onnx

    graph = model.graph
    taken = set(_names(graph))
    public = {value.name for value in (*graph.input, *graph.output)}
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        halves = None if tensor.name in public else _exact_halves(tensor)
        if halves is None:
            continue
        half_name = _unused(f"{tensor.name}.half", taken)
        taken.add(half_name)
        cast = onnx.helper.make_node("Cast", [half_name], [tensor.name], name=half_name, to=onnx.TensorProto.FLOAT)
        casts.append(cast)
        tensor.CopyFrom(onnx.numpy_helper.from_array(halves, half_name))
    if casts:
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)


def _exact_halves(tensor: onnx.TensorProto) -> NDArray[np.float16] | None:
    """Return the values in float16; None if inexact or too few."""
    import onnx

    if tensor.data_type != onnx.TensorProto.FLOAT or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    if math.prod(tensor.dims) < FEWEST_ELEMENTS:
        return None
    values = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor), np.float32)
    if not np.isfinite(values).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        halves = values.astype(np.float16)
    # Compared as integers, because -0 == 0.
    same = np.array_equal(halves.astype(np.float32).view(np.uint32), values.view(np.uint32))
    return halves if same else None


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Return names of nodes and values, including subgraphs."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _names(subgraph)


def _unused(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}{number}"
    return candidate

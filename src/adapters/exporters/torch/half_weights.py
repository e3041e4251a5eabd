"""Lossless storage of weights in 16 bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# With fewer, the name and the node of the Cast take about as much as they save.
FEWEST_ELEMENTS = 1024


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

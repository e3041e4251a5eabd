"""Write the group normalisation of an ONNX graph without reshapes.

Exporters write it as Reshape, InstanceNormalization, Reshape, Mul and Add. A reshape forces a runtime out of the layout
that its convolutions compute in, with channels last, and back. Here the means over a group are means over each channel,
averaged by a 1x1x1 convolution with a constant matrix; what is left are multiplications and additions by channel.

A feature map is read for the sum and the sum of squares of each plane, and once more to be scaled. The variance within
a plane is the mean square less the squared mean, which loses digits where the mean is large beside the deviation, so
networks can tell how large it was: see `LARGEST_RATIO`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# of ONNX, from which on ReduceMean takes its axes as an input
_OPSET = 18
# Rewriting needs the graph in memory three times; larger ones are loaded by the runtime alone.
_LARGEST_BYTES = 2**30
_RANKS = (4, 5)
# An output with the greatest squared mean of a channel, as a multiple of its group's variance.
RATIO = "voxport_group_norm_ratio"
# Measured in OpenVINO, the variance is off by 2e-7 of the squared mean where a plane has 128 x 64 voxels, by 1e-6 where
# it has 512 x 512, and by up to 5e-4 where it is constant: up to this ratio by 3e-4 of itself, and what is beyond is
# found. The ratio is 5 to 20 in trained networks, and up to 90 where an image is constant.
LARGEST_RATIO = 300.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _GroupNorm:
    """Nodes that normalise ``source`` into ``result``; ``scale`` and ``bias`` have one value a channel."""

    nodes: tuple[onnx.NodeProto, ...]
    source: str
    result: str
    rank: int
    groups: int
    epsilon: float
    scale: Floats
    bias: Floats


def read_without_reshapes(path: Path) -> bytes | None:
    """Return an ONNX file with its group normalisation rewritten; None where there is none, or it cannot be read.

    It has the output `RATIO` besides its own.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        model = onnx.load_model(path, load_external_data=False)
    except (OSError, DecodeError):
        return None  # the runtime's own error says more
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    if external or not rewrite_group_norms(model, with_ratio=True):
        return None
    content: bytes = model.SerializeToString()
    return content


def rewrite_group_norms(model: onnx.ModelProto, *, with_ratio: bool = False) -> int:
    """Rewrite the group normalisation of a valid model in place; return how many were rewritten.

    Inputs, outputs and other nodes stay; ``with_ratio`` adds the output `RATIO`. What cannot be recognised for sure
    stays too: another type than float32, an unknown number of channels, statistics over a part of the voxels, or a
    value in between that is used elsewhere.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET or not any(n.op_type in _KINDS for n in model.graph.node):
        return 0
    graph = _Graph(model)
    found = [norm for node in model.graph.node if (norm := graph.group_norm(node)) is not None]
    after = {norm.nodes[-1].output[0]: _written(norm, number, model.graph) for number, norm in enumerate(found)}
    gone = {node.output[0] for norm in found for node in norm.nodes}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        name = node.output[0] if node.output else ""
        nodes += after.get(name, () if name in gone else (node,))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if found:
        drop_unused(model.graph, ("Shape", "Constant"))
    if found and with_ratio:
        _add_ratio(model.graph, len(found))
    return len(found)


_KINDS = ("InstanceNormalization", "GroupNormalization")


class _Graph:
    """A graph's constants, shapes, and who makes and uses each value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            value.name: [d.dim_value or d.dim_param or None for d in value.type.tensor_type.shape.dim]
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        graph = model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        # in subgraphs too, names of this graph may be used
        inner = {name for n in graph.node for a in n.attribute for g in (a.g, *a.graphs) for name in _used(g)}
        self._seen_elsewhere = {value.name for value in graph.output} | inner

    def group_norm(self, node: onnx.NodeProto) -> _GroupNorm | None:
        """Return the group normalisation that a node is the heart of, or None."""
        if node.op_type == "GroupNormalization":
            return self._one_node(node)
        if node.op_type == "InstanceNormalization":
            return self._reshaped(node)
        return None

    def _one_node(self, node: onnx.NodeProto) -> _GroupNorm | None:
        source, result = node.input[0], node.output[0]
        rank, channels = self._rank_and_channels(source)
        groups = int(_attribute(node, "num_groups", 0))
        scale, bias = (self._by_channel(name, channels, groups) for name in node.input[1:3])
        if scale is None or bias is None or _attribute(node, "stash_type", 1) != 1:
            return None
        return _GroupNorm((node,), source, result, rank, groups, _attribute(node, "epsilon", 1e-5), scale, bias)

    def _reshaped(self, node: onnx.NodeProto) -> _GroupNorm | None:
        """Recognise Reshape to (N, groups, the rest), InstanceNormalization, Reshape back, and Mul and Add if any."""
        before, after = self._makers.get(node.input[0]), self._only_user(node.output[0])
        if before is None or before.op_type != "Reshape" or after is None or after.op_type != "Reshape":
            return None
        source, grouped = before.input[0], self._constant(before.input[1])
        rank, channels = self._rank_and_channels(source)
        if self._only_user(node.input[0]) is None or grouped is None or grouped.size != 3 or grouped[2] != -1:
            return None
        groups = int(grouped[1])
        one_case = self._shapes.get(source, [None])[0] == 1 == grouped[0]
        if groups < 1 or not (grouped[0] == 0 or one_case) or not self._restores(after, source):
            return None
        scale, bias = (self._by_channel(name, channels, groups) for name in node.input[1:3])
        if scale is None or bias is None:
            return None
        nodes = [before, node, after]
        for kind in ("Mul", "Add"):
            user = self._only_user(nodes[-1].output[0])
            if user is None or user.op_type != kind:
                continue
            (other,) = (name for name in user.input if name != nodes[-1].output[0])
            values = self._per_channel(other, channels, rank)
            if values is None:
                break
            scale, bias = (scale * values, bias * values) if kind == "Mul" else (scale, bias + values)
            nodes.append(user)
        epsilon = _attribute(node, "epsilon", 1e-5)
        return _GroupNorm(tuple(nodes), source, nodes[-1].output[0], rank, groups, epsilon, scale, bias)

    def _rank_and_channels(self, name: str) -> tuple[int, int]:
        """Return rank and channels of a float32 value; zeros if unknown."""
        shape = self._shapes.get(name, [])
        known = len(shape) in _RANKS and isinstance(shape[1], int)
        return (len(shape), int(shape[1] or 0)) if known else (0, 0)

    def _restores(self, reshape: onnx.NodeProto, source: str) -> bool:
        """Return whether a Reshape gives a value the shape of ``source``."""
        maker = self._makers.get(reshape.input[1])
        if maker is not None and maker.op_type == "Shape":
            whole = _attribute(maker, "start", 0) == 0 and _attribute(maker, "end", None) is None
            return bool(whole and maker.input[0] == source)
        before, after = (self._shapes.get(name) for name in (source, reshape.output[0]))
        return before is not None and before == after and None not in before

    def _by_channel(self, name: str, channels: int, groups: int) -> Floats | None:
        """Return a constant with one value a channel, from one that has one a group or a channel."""
        values = self._constant(name)
        if values is None or groups < 1 or not channels or channels % groups or values.size not in (groups, channels):
            return None
        repeated = values.astype(np.float32).ravel()
        return repeated if repeated.size == channels else repeated.repeat(channels // groups)

    def _per_channel(self, name: str, channels: int, rank: int) -> Floats | None:
        """Return a constant that broadcasts along the channels alone, with one value a channel."""
        values = self._constant(name)
        if values is None or values.ndim > rank:
            return None
        shape = (1,) * (rank - values.ndim) + values.shape
        if any(edge != 1 for axis, edge in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
            return None
        return np.broadcast_to(values.astype(np.float32).ravel(), channels)

    def _constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value, also behind a Cast to float32."""
        import onnx

        maker = self._makers.get(name)
        if name in self._constants:
            return onnx.numpy_helper.to_array(self._constants[name])
        if maker is not None and maker.op_type == "Constant" and maker.attribute[0].name == "value":
            return onnx.numpy_helper.to_array(maker.attribute[0].t)
        if maker is not None and maker.op_type == "Cast" and _attribute(maker, "to", 0) == onnx.TensorProto.FLOAT:
            halves = self._constant(maker.input[0])
            return None if halves is None else halves.astype(np.float32)
        return None

    def _only_user(self, name: str) -> onnx.NodeProto | None:
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and name not in self._seen_elsewhere else None


def _written(norm: _GroupNorm, number: int, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that replace a group normalisation; add their constants to the graph."""
    import onnx

    prefix = _prefix(number)
    nodes: list[onnx.NodeProto] = []
    channels = norm.scale.size
    one_each = (1, channels, *(1,) * (norm.rank - 2))

    def constant(name: str, values: NDArray[Any]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), f"{prefix}/{name}"))
        return f"{prefix}/{name}"

    def add(kind: str, name: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        made = result or f"{prefix}/{name}"
        nodes.append(onnx.helper.make_node(kind, inputs, [made], name=f"{prefix}/{name}", **attributes))
        return made

    size = channels // norm.groups
    share = np.kron(np.eye(norm.groups), np.full((size, size), 1 / size)).astype(np.float32)
    matrix = constant("matrix", share.reshape(channels, channels, *(1,) * (norm.rank - 2)))
    spatial = constant("spatial", np.arange(2, norm.rank, dtype=np.int64))
    plane = constant("plane", np.arange(3, norm.rank, dtype=np.int64))
    epsilon = constant("epsilon", np.full((1,) * norm.rank, norm.epsilon, np.float32))
    scale = constant("scale", norm.scale.reshape(one_each).astype(np.float32))
    bias = constant("bias", norm.bias.reshape(one_each).astype(np.float32))

    def squared(name: str, value: str) -> str:
        return add("Mul", name, value, value)

    def over_group(name: str, of_planes: str) -> str:
        of_channel = add("ReduceMean", f"{name}_of_channel", of_planes, spatial, keepdims=1)
        return add("Conv", f"{name}_of_group", of_channel, matrix)

    edges = add("Cast", "edges", add("Shape", "shape", norm.source, start=3), to=onnx.TensorProto.FLOAT)
    pixels = add("ReduceProd", "pixels", edges, keepdims=0)
    # a sum, as a runtime makes one of two means in a row; a norm, as it needs no map of squares
    mean = add("Div", "mean", add("ReduceSum", "sum", norm.source, plane, keepdims=1), pixels)
    length = add("ReduceL2", "length", norm.source, plane, keepdims=1)
    square = squared("square", add("Div", "root_mean_square", length, add("Sqrt", "root", pixels)))
    within = add("Sub", "within", square, squared("squared_mean", mean))
    whole_mean = over_group("mean", mean)
    between = squared("between", add("Sub", "centred", mean, whole_mean))
    variance = over_group("variance", add("Add", "of_plane", within, between))
    # rounding may leave a constant map a little below zero
    deviation = add("Sqrt", "deviation", add("Add", "positive", add("Relu", "clipped", variance), epsilon))
    factor = add("Div", "factor", scale, deviation)
    shift = add("Sub", "shift", bias, add("Mul", "scaled_mean", whole_mean, factor))
    add("Add", "shifted", add("Mul", "scaled", norm.source, factor), shift, result=norm.result)
    return nodes


def _add_ratio(graph: onnx.GraphProto, norms: int) -> None:
    """Add the output `RATIO`, with one element."""
    import onnx

    def add(kind: str, *inputs: str, result: str, **attributes: Any) -> str:
        graph.node.append(onnx.helper.make_node(kind, inputs, [result], **attributes))
        return result

    ratios = []
    for prefix in map(_prefix, range(norms)):
        mean = f"{prefix}/mean_of_channel"
        squared = add("Mul", mean, mean, result=f"{prefix}/squared_mean_of_channel")
        ratio = add("Div", squared, f"{prefix}/positive", result=f"{prefix}/ratio")
        ratios.append(add("ReduceMax", ratio, result=f"{prefix}/greatest_ratio", keepdims=0))
    # Max takes any number of values
    add("Max", *ratios, result=RATIO)
    graph.output.append(onnx.helper.make_tensor_value_info(RATIO, onnx.TensorProto.FLOAT, []))


def _prefix(number: int) -> str:
    return f"voxport_group_norm_{number}"


def drop_unused(graph: onnx.GraphProto, kinds: Container[str]) -> None:
    """Remove nodes of some kinds that nothing uses, those that only they used, and constants that nothing uses."""
    ends = {value.name for value in (*graph.input, *graph.output)}
    while True:
        used = set(_used(graph)) | ends
        unused = [node for node in graph.node if node.op_type in kinds and used.isdisjoint(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _attribute(node: onnx.NodeProto, name: str, default: float | None) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _used(graph: onnx.GraphProto) -> list[str]:
    """Return the names that the nodes of a subgraph use, and those of its own subgraphs."""
    names = [name for node in graph.node for name in node.input]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names += _used(inner)
    return names

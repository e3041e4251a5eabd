"""An affine network, ``logits = weights @ image + bias`` in each voxel, with a known result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..domain.cards.model_card import Channel, Input, ModelCard
from ..domain.inference.patches import Tiling
from ..domain.labels.label_map import Label, LabelTable, Output
from ..ports.model import Model

Floats = NDArray[np.float32]
# Three classes of two channels; logits of standard normal images are at most about 10.
WEIGHTS: Floats = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]], np.float32)
BIAS: Floats = np.array([0.125, -3.0, 1.0], np.float32)


def affine_logits(batch: Floats, weights: Floats, bias: Floats) -> Floats:
    """Return logits ``(N, K, ., ., .)`` of a batch ``(N, C, ., ., .)`` for weights ``(K, C)`` and bias ``(K,)``."""
    logits = np.einsum("kc,ncxyz->nkxyz", weights.astype(np.float64), batch.astype(np.float64))
    return np.asarray(logits + bias.astype(np.float64)[:, None, None, None], dtype=np.float32)


def write_affine_onnx(path: Path, weights: Floats, bias: Floats) -> None:
    """Write the network as ONNX with dynamic axes: a 1x1x1 convolution from ``image`` to ``scores``."""
    write_kernel_onnx(path, weights[:, :, None, None, None], bias)


def write_kernel_onnx(path: Path, kernel: Floats, bias: Floats, space: Sequence[int | str] = ("i", "j", "k")) -> None:
    """Write a zero-padded convolution with a cubic kernel ``(K, C, n, n, n)`` and a bias ``(K,)`` as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    classes, channels, edge = kernel.shape[:3]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights", "bias"], ["scores"], pads=[edge // 2] * 6)],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, *space])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, *space])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in (("weights", kernel), ("bias", bias))],
    )
    # IR version 10 matches opset 20. onnx's default is its newest, which older runtimes refuse.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def affine_card(
    channels: int,
    classes: int,
    *,
    tiling: Tiling | None = None,
    axes: Literal["XYZ", "ZYX"] = "XYZ",
    provenance: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Return a matching card: softmax over ``classes``, or sigmoid for one class."""
    values = range(1, max(classes, 2))
    return ModelCard(
        name="affine",
        version="1.0.0",
        description="A weighted sum of the channels.",
        licence="Apache-2.0",
        intended_use="Tests.",
        input=Input(tuple(Channel(f"channel {i}", i) for i in range(channels)), axes=axes),
        tiling=tiling or Tiling((8, 8, 8)),
        output=Output(
            "softmax" if classes > 1 else "sigmoid", LabelTable(tuple(Label(v, f"label {v}") for v in values))
        ),
        provenance=provenance or {},
    )


def affine_model(path: Path, card: ModelCard, file_format: Literal["onnx", "checkpoint"] = "onnx") -> Model:
    """Return the model at ``path`` with a card, without a `ModelFiles` adapter."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(path, card, digest, digest, file_format)

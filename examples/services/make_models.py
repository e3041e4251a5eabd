"""Make the tiny networks of the examples, and save them: ``python -m examples.services.make_models``.

Their answers can be computed by hand: the classifier compares colours, the detector brightness, the text model words.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from voxport import Application

COLOURS = ("red", "green", "blue", "cyan", "magenta", "yellow")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WORDS = ("good", "great", "clear", "bad", "poor", "noisy")
LENGTH = 8
_FLOAT, _INT = TensorProto.FLOAT, TensorProto.INT64


def colour_classifier() -> onnx.ModelProto:
    """Logits of six colours for images ``(n, 3, 8, 8)``: the mean colour, compared with each."""
    rgb = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    weights = np.array(rgb, np.float32) * 2 - 1
    nodes = [
        helper.make_node("ReduceMean", ["image", "edges"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    constants = {"weights": weights.T.copy(), "edges": np.array([2, 3], np.int64)}
    return _model(nodes, [("image", _FLOAT, ["n", 3, 8, 8])], [("logits", _FLOAT, ["n", 6])], constants)


def text_classifier() -> onnx.ModelProto:
    """Logits of two classes for tokens ``(n, 8)``: how many words are praise, and how many are blame."""
    table = np.zeros((len(WORDS) + 1, 2), np.float32)
    table[1:4, 1], table[4:7, 0] = 1, 1
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axis"], ["logits"], keepdims=0),
    ]
    constants = {"table": table, "axis": np.array([1], np.int64)}
    return _model(nodes, [("tokens", _INT, ["n", LENGTH])], [("logits", _FLOAT, ["n", 2])], constants)


def bright_detector() -> onnx.ModelProto:
    """Boxes ``(n, 5, 4)`` as fractions of the image, and probabilities ``(n, 5, 2)`` of dark and bright.

    The boxes are the four quarters of an image ``(n, 3, 16, 16)``, and a second one that nearly covers the first.
    """
    quarters = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1], [0, 0, 0.5, 0.45]])
    nodes = [
        helper.make_node("ReduceMean", ["image", "channels"], ["grey"], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["pooled", "four"], ["quarters"]),
        helper.make_node("Gather", ["quarters", "which"], ["means"], axis=1),
        helper.make_node("Mul", ["means", "trust"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["probabilities"], axis=2),
        helper.make_node("Shape", ["image"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Expand", ["fixed", "shape"], ["boxes"]),
    ]
    constants = {
        "channels": np.array([1], np.int64),
        "four": np.array([0, 4, 1], np.int64),
        "which": np.array([0, 1, 2, 3, 0], np.int64),
        "trust": np.array([[[1], [1], [1], [1], [0.9]]], np.float32),
        "one": np.array(1, np.float32),
        "rest": np.array([5, 4], np.int64),
        "fixed": quarters[None].astype(np.float32),
    }
    outputs = [("boxes", _FLOAT, ["n", 5, 4]), ("probabilities", _FLOAT, ["n", 5, 2])]
    return _model(nodes, [("image", _FLOAT, ["n", 3, 16, 16])], outputs, constants)


def suppression() -> onnx.ModelProto:
    """Non-maximum suppression as one node: boxes (1, n, 4) and scores (1, 1, n) to the indices that stay."""
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["kept"])
    inputs = [("boxes", _FLOAT, [1, "n", 4]), ("scores", _FLOAT, [1, 1, "n"]), ("overlap", _FLOAT, [1])]
    return _model([node], inputs, [("kept", _INT, ["k", 3])], {"most": np.array([100], np.int64)})


def mean_of_rows() -> onnx.ModelProto:
    """The mean of each row of ``(n, length)``, whatever the length."""
    node = helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1)
    constants = {"axis": np.array([1], np.int64)}
    return _model([node], [("x", _FLOAT, ["n", "length"])], [("mean", _FLOAT, ["n", 1])], constants)


def doubled_plus_one() -> onnx.ModelProto:
    """``2 x + 1`` of rows ``(n, 4)``."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["doubled"]), helper.make_node("Add", ["doubled", "one"], ["y"])]
    constants = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    return _model(nodes, [("x", _FLOAT, ["n", 4])], [("y", _FLOAT, ["n", 4])], constants)


def optimised(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph as ONNX Runtime optimises it, and the metadata that say so."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = onnx.load(path)
    details = {
        "optimization_level": "ORT_ENABLE_EXTENDED",
        "optimized": True,
        "original_size_bytes": len(model.SerializeToString()),
        "optimized_size_bytes": len(found.SerializeToString()),
    }
    return found, details


def save_all() -> list[str]:
    """Save every model of the examples in the store of the settings; their tags."""
    models = Application.build().tensor_models
    batched = {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": 32}}
    smaller, details = optimised(doubled_plus_one())
    saved = [
        models.save_model(
            "image_classifier",
            colour_classifier(),
            signatures=batched,
            labels={"stage": "example"},
            custom_objects={"class_names": list(COLOURS), "preprocessing_params": {"mean": MEAN, "std": STD}},
        ),
        models.save_model(
            "text_classifier",
            text_classifier(),
            metadata={"max_length": LENGTH},
            custom_objects={
                "vocab": {word: number for number, word in enumerate(WORDS, 1)},
                "class_names": ["blame", "praise"],
            },
        ),
        models.save_model(
            "object_detector",
            bright_detector(),
            metadata={"confidence_threshold": 0.5, "nms_threshold": 0.4},
            custom_objects={"class_names": ["dark", "bright"]},
        ),
        models.save_model("suppression", suppression()),
        models.save_model("dynamic_model", mean_of_rows()),
        models.save_model("batch_model", doubled_plus_one(), signatures=batched),
        models.save_model("optimized_model", smaller, metadata=details),
    ]
    return [model.tag for model in saved]


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
    constants: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    values = [[helper.make_tensor_value_info(*entry) for entry in entries] for entries in (inputs, outputs)]
    graph = helper.make_graph(nodes, "example", values[0], values[1], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


if __name__ == "__main__":
    sys.stdout.write("\n".join(save_all()) + "\n")

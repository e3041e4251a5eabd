"""A network that is not what its card says is refused when it is loaded; what it says of itself is then right.

The networks are in closed form: logits 8 (x - 1/2) and a constant, then an activation. Every voxel is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.contract.card import read_card
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Tiling
from voxport.domain.labels.label_map import Activation
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.services.models.loading import LoadedModel, ModelOpener
from voxport.services.models.probing import check_repeats
from voxport.testing.fakes import FakeRuntime

from tests.services.conftest import Bench, make_card, make_grid, noise

SHAPE = (13, 9, 10)
# the logits of each kind of network: one a label, or background first
ONE, EACH, SHARED = ((8.0, -4.0),), ((8.0, -4.0), (-8.0, 6.0)), ((0.0, 0.0), (8.0, -4.0), (-8.0, 2.0))
ENDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "nothing": [],
    "sigmoid": [("Sigmoid", {})],
    "softmax": [("Softmax", {"axis": 1})],
    "arg-max": [("ArgMax", {"axis": 1, "keepdims": 1})],
    "flat arg-max": [("ArgMax", {"axis": 1, "keepdims": 0})],
    "threshold": [("Round", {})],
}


def write(path: Path, rows: Sequence[tuple[float, float]], end: str) -> None:
    """Logits ``a x + b`` of each row, and what the graph ends in."""
    weights = np.array([a for a, _ in rows], np.float32)
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["t0"])]
    steps = [("Sigmoid", {}), *ENDS[end]] if end == "threshold" else ENDS[end]
    for number, (operator, attributes) in enumerate(steps):
        nodes.append(helper.make_node(operator, [f"t{number}"], [f"t{number + 1}"], **attributes))
    kind = TensorProto.INT64 if "arg-max" in end else TensorProto.FLOAT
    shape: list[Any] = ["n", "i", "j", "k"] if end == "flat arg-max" else ["n", "c", "i", "j", "k"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "i", "j", "k"])],
        [helper.make_tensor_value_info(f"t{len(steps)}", kind, shape)],
        [
            onnx.numpy_helper.from_array(weights.reshape(len(rows), 1, 1, 1, 1), "w"),
            onnx.numpy_helper.from_array(np.array([b for _, b in rows], np.float32), "b"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def opener() -> ModelOpener:
    def open_onnx(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        return open_onnx_runtime(model, options, OnnxRuntimeSettings(threads=1))

    return ModelOpener(OnnxModelFiles(), None, {"onnx": open_onnx}, "none")  # type: ignore[arg-type]


def model(
    folder: Path, rows: Sequence[tuple[float, float]], end: str, activation: Activation, labels: Sequence[int]
) -> Model:
    path = folder / "n.onnx"
    write(path, rows, end)
    card = make_card(labels=labels, activation=activation, tiling=Tiling((8, 8, 8)))
    return Model(path, card, "a" * 64, "b" * 64)


def loaded(*given: Any) -> LoadedModel:
    return opener().load(model(*given))


def right_labels(x: NDArray[np.float32], rows: Sequence[tuple[float, float]], labels: Sequence[int]) -> Any:
    logits = np.stack([np.float32(a) * x + np.float32(b) for a, b in rows])
    if len(rows) == len(labels) + 1:
        return logits.argmax(axis=0)
    found = np.zeros(x.shape, int)
    for value, channel in zip(labels, logits, strict=True):
        found[channel >= 0] = value
    return found


@pytest.mark.parametrize(
    ("rows", "end", "activation", "labels", "said"),
    [
        (ONE, "sigmoid", "sigmoid", (1,), "probabilities"),
        (EACH, "sigmoid", "sigmoid", (1, 2), "probabilities"),
        (SHARED, "softmax", "softmax", (1, 2), "probabilities"),
        (SHARED, "sigmoid", "softmax", (1, 2), "probabilities"),
        (SHARED, "softmax", "sigmoid", (1, 2, 3), "probabilities"),
        (ONE, "threshold", "sigmoid", (1,), "label map; set output.activation to none"),
        (EACH, "threshold", "sigmoid", (1, 2), "label map; set output.activation to none"),
        (SHARED, "arg-max", "sigmoid", (1,), "label map; set output.activation to none"),
        (SHARED, "arg-max", "softmax", (1, 2), "expected 3 channels, .*, got 1 channels"),
        (SHARED, "arg-max", "none", (1, 2), "got 1 channels"),
        (SHARED, "flat arg-max", "none", (1,), r"logits on the patch's grid, .* got \(1, 16, 16, 16\)"),
    ],
)
def test_an_activation_inside_the_network_is_refused_where_the_card_wants_logits(
    tmp_path: Path,
    rows: Sequence[tuple[float, float]],
    end: str,
    activation: Activation,
    labels: Sequence[int],
    said: str,
) -> None:
    for use in (opener().load, opener().check):
        with pytest.raises(ModelError, match=said):
            use(model(tmp_path, rows, end, activation, labels))


@pytest.mark.parametrize(
    ("rows", "end", "labels"),
    [
        (ONE, "sigmoid", (1,)),
        (ONE, "sigmoid", (7,)),
        (ONE, "threshold", (1,)),
        (EACH, "sigmoid", (1, 2)),
        (EACH, "sigmoid", (4, 2)),
        (SHARED, "softmax", (1, 2)),
        (SHARED[:2], "softmax", (1,)),
    ],
)
def test_with_activation_none_every_voxel_has_the_label_of_the_networks_logits(
    tmp_path: Path, bench: Bench, rows: Sequence[tuple[float, float]], end: str, labels: Sequence[int]
) -> None:
    values = bench.put(noise(SHAPE), make_grid(SHAPE)).array.reshape(SHAPE).astype(np.float32)
    bench.segment(loaded(tmp_path, rows, end, "none", labels))
    np.testing.assert_array_equal(bench.array(), right_labels(values, rows, labels))
    share = np.count_nonzero(bench.array()) / values.size
    assert 0.2 < share < 1 or len(labels) > 1


def test_the_threshold_counts_for_probabilities_as_they_are(tmp_path: Path, bench: Bench) -> None:
    values = bench.put(noise(SHAPE), make_grid(SHAPE)).array.reshape(SHAPE).astype(np.float64)
    bench.segment(loaded(tmp_path, ONE, "sigmoid", "none", (1,)), threshold=0.9)
    np.testing.assert_array_equal(bench.array(), 8 * values - 4 >= np.log(9))


@pytest.mark.parametrize(
    ("rows", "activation", "labels"), [(ONE, "sigmoid", (1,)), (EACH, "sigmoid", (3, 1)), (SHARED, "softmax", (1, 2))]
)
def test_logits_are_taken_as_before(
    tmp_path: Path, bench: Bench, rows: Sequence[tuple[float, float]], activation: Activation, labels: Sequence[int]
) -> None:
    values = bench.put(noise(SHAPE), make_grid(SHAPE)).array.reshape(SHAPE).astype(np.float32)
    found = loaded(tmp_path, rows, "nothing", activation, labels)
    opener().check(found.model)
    bench.segment(found)
    np.testing.assert_array_equal(bench.array(), right_labels(values, rows, labels))


@pytest.mark.parametrize("rows", [((0.01, 0.5),), ((0.0, 0.5), (0.01, 0.5))])
def test_logits_that_look_activated_are_taken_if_the_card_says_so_as_advised(
    tmp_path: Path, bench: Bench, rows: Sequence[tuple[float, float]]
) -> None:
    given = model(tmp_path, rows, "nothing", "sigmoid" if len(rows) == 1 else "softmax", (1,))
    with pytest.raises(ModelError, match=r"probabilities; .* if these are logits, set output.bounded to true"):
        opener().load(given)
    fields = write_card(given.card)
    fields["output"]["bounded"] = True
    given = replace(given, card=read_card(fields))
    assert read_card(write_card(given.card)) == given.card
    opener().check(given)
    values = bench.put(noise(SHAPE), make_grid(SHAPE)).array.reshape(SHAPE).astype(np.float32)
    bench.segment(opener().load(given))
    np.testing.assert_array_equal(bench.array(), right_labels(values, rows, (1,)))


# Networks that no run could use


def fake(function: Any, card: ModelCard | None = None, **options: Any) -> LoadedModel:
    runtime = FakeRuntime(function, **options)
    known = Model(Path("m.onnx"), card or make_card(), "a" * 64, "b" * 64)
    folder: Any = None
    return ModelOpener(folder, folder, {"onnx": lambda *_: runtime}, "none").load(known)


def test_a_valid_convolution_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"expected logits on the patch's grid, \(1, K, 16, 16, 16\), got \(1, 2, 12"):
        fake(lambda batch: np.concatenate([batch, -batch], 1)[..., 2:-2, 2:-2, 2:-2])


def test_a_network_that_takes_one_size_only_is_tried_at_the_cards_patch() -> None:
    def choosy(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if batch.shape[2:] != (8, 4, 12):
            raise ModelError("m.onnx", expected="8 x 4 x 12", got=str(batch.shape), do="no more")
        return np.concatenate([batch, -batch], 1)

    card = make_card(tiling=Tiling((8, 4, 12), divisor=4))
    assert fake(choosy, card).model.card.output.channels == 2
    with pytest.raises(ModelError, match="expected 8 x 4 x 12"):
        fake(choosy, replace(card, tiling=Tiling((8, 8, 8))))


def test_a_network_that_answers_differently_each_time_is_named_so() -> None:
    dice = np.random.default_rng(0)
    batch = dice.standard_normal((1, 1, 4, 4, 4)).astype(np.float32)
    dropout = FakeRuntime(lambda given: given * dice.integers(0, 2, given.shape))
    with pytest.raises(ModelError, match=r"m\.onnx: expected a network that gives the same logits.*without dropout"):
        check_repeats(dropout, batch, dropout.infer(batch), "m.onnx")
    steady = FakeRuntime(lambda given: 2 * given)
    check_repeats(steady, batch, steady.infer(batch), "m.onnx")


def test_a_model_without_a_certificate_is_asked_twice_when_it_is_loaded() -> None:
    dice = np.random.default_rng(0)
    with pytest.raises(ModelError, match="same logits"):
        fake(lambda batch: np.concatenate([batch, -batch], 1) * dice.integers(0, 2, batch.shape))

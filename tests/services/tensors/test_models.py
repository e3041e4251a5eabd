"""Models of any kind are loaded once, found by name and version, and batched where their signature says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.domain.errors import ModelError, UnknownModelError
from voxport.ports.tensor_models import Plain, Serialisable, TensorModel
from voxport.ports.tensors import TensorSession
from voxport.services.assurance.signing import Trust
from voxport.services.tensors.batching import Batching
from voxport.services.tensors.models import Provider, TensorModels, batching_of
from voxport.testing.tensors import FakeSession, doubled

BATCHED: Mapping[str, Any] = {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": 4}}


class Store:
    """Models in a list."""

    def __init__(self) -> None:
        self.models: list[TensorModel] = []

    def save_model(
        self,
        name: str,
        model: str | Path | Serialisable,
        signatures: Plain | None = None,
        labels: Mapping[str, str] | None = None,
        custom_objects: Plain | None = None,
        metadata: Plain | None = None,
    ) -> TensorModel:
        version = str(len(self.models) + 1)
        kept = (signatures or {}, labels or {}, metadata or {}, custom_objects or {})
        self.models.append(TensorModel(name, version, Path(str(model)), f"sha of {model}", *kept))
        return self.models[-1]

    def get(self, tag: str) -> TensorModel:
        found = [model for model in self.models if tag in (model.name, model.tag)]
        if not found:
            raise UnknownModelError(tag, expected="a model", got="another name", do="name one of them")
        return found[-1]

    def list(self) -> tuple[TensorModel, ...]:
        return tuple(self.models)


class Opener:
    """Opens doubling fakes, and remembers which."""

    def __init__(self) -> None:
        self.opened: list[tuple[Path, Sequence[Provider] | None]] = []
        self.sessions: list[FakeSession] = []

    def __call__(self, path: Path, providers: Sequence[Provider] | None = None) -> TensorSession:
        self.opened.append((path, providers))
        self.sessions.append(doubled("float32"))
        return self.sessions[-1]


def test_a_model_is_saved_found_and_listed_with_what_belongs_to_it() -> None:
    models = TensorModels(Store(), Opener())
    saved = models.save_model("a", "a.onnx", BATCHED, {"stage": "x"}, {"names": ["b"]}, {"n": 1})
    assert models.get("a") == models.get("a:1") == saved
    assert models.list() == (saved,)
    assert (saved.signatures, saved.custom_objects) == (BATCHED, {"names": ["b"]})
    with pytest.raises(UnknownModelError):
        models.get("a:2")


def test_a_model_that_is_loaded_has_a_session_of_its_own_with_its_providers() -> None:
    opener = Opener()
    models = TensorModels(Store(), opener)
    models.save_model("a", "a.onnx")
    first, second = models.load_model("a"), models.load_model("a:1", ["CPUExecutionProvider"])
    assert first is not second
    assert [providers for _, providers in opener.opened] == [None, ["CPUExecutionProvider"]]


@pytest.mark.parametrize("signatures", [BATCHED, {"run": {"batchable": False}}])
def test_a_model_that_runs_is_loaded_once_and_closed_at_the_end(signatures: Mapping[str, Any]) -> None:
    opener = Opener()
    models = TensorModels(Store(), opener)
    model = models.save_model("a", "a.onnx", signatures)
    rows = np.ones((1, 3), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(models.run(model, {"x": rows})["y"], 2 * rows)
    assert models.session(model) is opener.sessions[0]
    assert len(opener.opened) == 1
    models.close()
    assert models.session(model) is not opener.sessions[0]


def test_a_model_that_must_be_signed_and_is_not_never_reaches_a_runtime() -> None:
    class Refusing(Trust):
        def check_file(self, file: Path) -> None:
            raise ModelError(file.name, expected="a signature", got="none", do="sign it")

    opener = Opener()
    models = TensorModels(Store(), opener, Refusing(None, None))  # type: ignore[arg-type]
    model = models.save_model("a", "a.onnx")
    for attempt in (lambda: models.session(model), lambda: models.run(model, {"x": np.ones((1, 3), np.float32)})):
        with pytest.raises(ModelError, match="expected a signature"):
            attempt()
    assert opener.opened == []


def test_models_of_one_file_keep_to_their_own_signatures() -> None:
    models = TensorModels(Store(), Opener())
    shared, alone = models.save_model("shared", "a.onnx", BATCHED), models.save_model("alone", "a.onnx")
    assert shared.sha256 == alone.sha256
    assert models.session(shared) is not models.session(alone)


@pytest.mark.parametrize(
    ("signature", "axes", "batching"),
    [
        ({"batchable": True, "batch_dim": 0, "max_batch_size": 4}, ("n", 3), Batching(max_size=4)),
        ({"batchable": True}, ("n", 3), Batching()),
        ({"batchable": True, "batch_dim": [0, 0]}, ("n", 3), Batching()),
        ({"batchable": True, "batch_dim": 1}, (3, "n"), Batching(input_axis=1, output_axis=1)),
        ({"batchable": True, "batch_dim": [1, 1]}, (3, "n"), Batching(input_axis=1, output_axis=1)),
        ({"batchable": True, "batch_dim": 1}, ("n", 3), None),
        ({"batchable": True, "batch_dim": 2}, ("n", 3), None),
        ({"batchable": True, "batch_dim": [0, 1]}, ("n", "m"), None),
        ({"batchable": True}, (1, 3), None),
        ({"batchable": False}, ("n", 3), None),
        ({}, ("n", 3), None),
        ({"batchable": True, "batch_dim": "0"}, ("n", 3), None),
        ({"batchable": True, "batch_dim": [0]}, ("n", 3), None),
        ({"batchable": True, "batch_dim": [0, 0, 0]}, ("n", 3), None),
        ({"batchable": True, "batch_dim": 0.0}, ("n", 3), None),
        ({"batchable": True, "batch_dim": -7}, ("n", 3), None),
        ({"batchable": True, "batch_dim": None}, ("n", 3), None),
        ({"batchable": True, "batch_dim": {}}, ("n", 3), None),
        ({"batchable": True, "max_batch_size": "many"}, ("n", 3), None),
        ("batchable", ("n", 3), None),
    ],
)
def test_calls_share_a_batch_where_signature_and_network_allow_it(
    signature: Any, axes: tuple[int | str, ...], batching: Batching | None
) -> None:
    model = TensorModel("a", "1", Path("a.onnx"), "sha", {"run": signature})
    assert batching_of(model, doubled("float32", axes)) == batching

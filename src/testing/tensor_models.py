"""Contract suite of `TensorModelStore`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ..domain.errors import ModelError, UnknownModelError, UsageError
from ..ports.tensor_models import TensorModelStore
from .tensors import write_sum_onnx


class TensorModelStoreContract:
    """Subclass and implement the hooks."""

    def make_store(self, folder: Path) -> TensorModelStore:
        """Return a store in an empty folder."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _made(self, tmp_path: Path) -> None:
        self.network = tmp_path / "network.onnx"
        write_sum_onnx(self.network)
        self.store = self.make_store(tmp_path / "store")

    def test_a_file_comes_back_as_it_was_saved(self) -> None:
        saved = self.store.save_model("sums", self.network)
        found = self.store.get("sums")
        assert found == saved
        assert found.path.read_bytes() == self.network.read_bytes()
        assert found.sha256 == hashlib.sha256(self.network.read_bytes()).hexdigest()
        assert found.signatures == {"run": {"batchable": False}}

    def test_a_model_in_memory_is_saved(self) -> None:
        import onnx

        saved = self.store.save_model("sums", onnx.load(self.network))
        assert onnx.load(saved.path) == onnx.load(self.network)

    def test_arguments_have_the_order_of_bentomls_own_function(self) -> None:
        saved = self.store.save_model(
            "sums", self.network, {"run": {"batchable": True}}, {"a": "b"}, {"c": 1}, {"d": 2}
        )
        assert saved.signatures["run"]["batchable"] is True
        assert (saved.labels, saved.custom_objects, saved.metadata) == ({"a": "b"}, {"c": 1}, {"d": 2})

    def test_what_was_saved_with_it_comes_back(self) -> None:
        given: dict[str, Any] = {
            "signatures": {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": 16}},
            "labels": {"stage": "test"},
            "custom_objects": {"class_names": ["no", "yes"], "scale": {"mean": [0.5, 0.25]}},
            "metadata": {"accuracy": 0.95, "input_shape": [1, 3, 8, 8], "converted_from": "pytorch"},
        }
        self.store.save_model("sums", self.network, **given)
        found = self.store.get("sums:latest")
        assert {name: getattr(found, name) for name in given} == given

    def test_the_newest_version_is_found_by_name_and_each_by_tag(self) -> None:
        first = self.store.save_model("sums:b", self.network)
        second = self.store.save_model("sums:a", self.network)
        assert (first.version, second.version) == ("b", "a")
        assert self.store.get("sums") == second
        assert self.store.get("sums:b") == first

    def test_versions_are_made_where_none_is_named(self) -> None:
        versions = {self.store.save_model("sums", self.network).version for _ in range(3)}
        assert len(versions) == 3

    def test_models_are_listed_by_name_with_the_newest_last(self) -> None:
        for tag in ("zeta:1", "sums:2", "sums:1"):
            self.store.save_model(tag, self.network)
        assert [model.tag for model in self.store.list()] == ["sums:2", "sums:1", "zeta:1"]

    @pytest.mark.parametrize("tag", ["nothing", "sums:9", "", ":", "../sums", "sums:../1"])
    def test_an_unknown_model_is_an_error_that_lists_those_there_are(self, tag: str) -> None:
        self.store.save_model("sums:1", self.network)
        with pytest.raises(UnknownModelError, match="sums:1"):
            self.store.get(tag)

    def test_a_file_that_is_no_network_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
        for path in (tmp_path / "text.onnx", tmp_path / "missing.onnx"):
            with pytest.raises(ModelError):
                self.store.save_model("sums", path)
        assert self.store.list() == ()

    def test_objects_that_json_cannot_hold_are_refused(self) -> None:
        with pytest.raises(UsageError, match="custom_objects"):
            self.store.save_model("sums", self.network, custom_objects={"tokenizer": object()})
        with pytest.raises(UsageError, match="metadata"):
            self.store.save_model("sums", self.network, metadata={"loss": float("nan")})
        assert self.store.list() == ()

    @pytest.mark.parametrize("name", ["../up", "a/b", "", "UPPER case!", "a:b:c"])
    def test_a_name_that_is_no_name_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError):
            self.store.save_model(name, self.network)
        assert self.store.list() == ()

"""Contract suites of `ModelFiles` and `ModelRepository`, and a repository in memory."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ..domain.cards.model_card import ModelCard
from ..domain.errors import ModelError, OutputError
from ..domain.parity import Certificate
from ..ports.model import Model, ModelFiles
from ..ports.model_repository import Listing, ModelRepository
from .affine import affine_card, write_affine_onnx


class ModelFilesContract:
    """Subclass and implement the hooks, without the adapter."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.files = self.make_files()
        self.card = affine_card(1, 2)

    def make_files(self) -> ModelFiles:
        """Return the adapter."""
        raise NotImplementedError

    def bare_weights(self, path: Path) -> None:
        """Write a model file without a card."""
        raise NotImplementedError

    def embedded_card(self, path: Path) -> str | None:
        """Return the text of the card in a model file, or None."""
        raise NotImplementedError

    def write_yaml(self, path: Path, card: ModelCard) -> None:
        """Write a card file."""
        raise NotImplementedError

    def weights(self) -> Path:
        path = self.folder / "weights.onnx"
        self.bare_weights(path)
        return path

    def test_what_is_written_is_read_back(self) -> None:
        destination = self.folder / "model.onnx"
        written = self.files.write(self.weights(), self.card, destination)
        assert written == self.files.read(destination)
        assert written.card == self.card
        assert written.path == destination
        assert written.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()
        assert self.card.name in (self.embedded_card(destination) or "")

    def test_a_new_card_replaces_the_old_and_leaves_the_weights_as_they_were(self) -> None:
        destination = self.folder / "model.onnx"
        first = self.files.write(self.weights(), self.card, destination)
        second = self.files.write(destination, replace(self.card, version="2.0.0"), destination)
        assert second.card.version == "2.0.0"
        assert second.weights_sha256 == first.weights_sha256
        assert second.sha256 != first.sha256

    def test_the_card_given_comes_before_the_one_inside_and_that_before_the_one_beside(self) -> None:
        path = self.weights()
        beside, given = self.folder / "weights.card.yaml", self.folder / "given.yaml"
        self.write_yaml(beside, replace(self.card, version="1.0.0-beside"))
        self.write_yaml(given, replace(self.card, version="1.0.0-given"))
        assert self.files.read(path).card.version == "1.0.0-beside"
        self.files.write(path, replace(self.card, version="1.0.0-inside"), path)
        assert self.files.read(path).card.version == "1.0.0-inside"
        assert self.files.read(path, given).card.version == "1.0.0-given"

    def test_no_card_anywhere_is_a_model_error_that_says_where_one_may_be(self) -> None:
        with pytest.raises(ModelError, match=r"weights\.card\.yaml"):
            self.files.read(self.weights())

    def test_a_certificate_for_other_weights_is_refused(self) -> None:
        wrong = self.card.with_parity(Certificate("0" * 64, "2026-01-01", (), ()))
        with pytest.raises(ModelError, match="certified weights"):
            self.files.write(self.weights(), wrong, self.folder / "model.onnx")

    @pytest.mark.parametrize("content", [b"", b"no model", bytes(range(256)), b"\x08\x0a"])
    def test_a_file_that_is_no_model_is_a_model_error(self, content: bytes) -> None:
        path = self.folder / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx"):
            self.files.read(path)

    def test_a_missing_file_is_a_model_error(self) -> None:
        with pytest.raises(ModelError, match="no such file"):
            self.files.read(self.folder / "missing.onnx")

    def test_a_card_file_is_read(self) -> None:
        path = self.folder / "card.yaml"
        self.write_yaml(path, self.card)
        assert self.files.read_card(path) == self.card

    @pytest.mark.parametrize("content", [b"", b"a: [1", b"\xff\xfe\x00", b"just text", b"schema: voxport/model-card/1"])
    def test_a_file_that_is_no_card_is_a_model_error(self, content: bytes) -> None:
        path = self.folder / "card.yaml"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"card\.yaml"):
            self.files.read_card(path)

    def test_a_place_that_cannot_be_written_is_an_output_error_and_nothing_is_left(self) -> None:
        weights = self.weights()
        with pytest.raises(OutputError):
            self.files.write(weights, self.card, self.folder / "missing" / "model.onnx")
        assert [path.name for path in self.folder.iterdir()] == ["weights.onnx"]


class ModelRepositoryContract:
    """Subclass and implement the hooks."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.repository = self.make_repository()

    def make_repository(self) -> ModelRepository:
        """Return an empty repository; ``self.folder`` is available for its files."""
        raise NotImplementedError

    def make_model(self, card: ModelCard, path: Path, seed: int = 0) -> Model:
        """Write a model with a card to ``path`` without the repository; weights depend on the seed."""
        raise NotImplementedError

    def break_one(self) -> str:
        """Damage an entry of the repository; return its name in ``list``."""
        raise NotImplementedError

    def model(self, name: str = "vessels", version: str = "1.0.0", seed: int = 0) -> Model:
        card = replace(affine_card(1, 2), name=name, version=version)
        return self.make_model(card, self.folder / f"upload-{name}-{version}-{seed}.onnx", seed)

    def test_is_empty_at_first(self) -> None:
        assert self.repository.list() == Listing(())

    def test_a_model_that_was_put_is_listed_and_got_by_name_and_by_reference(self) -> None:
        stored = self.repository.put(self.model())
        assert stored.card.reference == "vessels:1.0.0"
        assert self.repository.list().models == (stored,)
        assert self.repository.get("vessels") == self.repository.get("vessels:1.0.0") == stored

    def test_a_stored_model_does_not_depend_on_the_file_it_came_from(self) -> None:
        given = self.model()
        self.repository.put(given)
        given.path.unlink()
        stored = self.repository.get("vessels")
        assert stored.path.is_file()
        assert stored.weights_sha256 == given.weights_sha256

    def test_a_name_means_its_highest_version(self) -> None:
        for version in ("1.9.0", "1.10.0", "1.10.0-rc1", "1.2.0"):
            self.repository.put(self.model(version=version))
        assert self.repository.get("vessels").card.version == "1.10.0"
        assert self.repository.get("vessels:1.2.0").card.version == "1.2.0"
        listed = [model.card.version for model in self.repository.list().models]
        assert listed == ["1.2.0", "1.9.0", "1.10.0-rc1", "1.10.0"]

    def test_putting_the_same_name_and_version_replaces(self) -> None:
        first = self.repository.put(self.model(seed=0))
        second = self.repository.put(self.model(seed=1))
        assert first.weights_sha256 != second.weights_sha256
        assert self.repository.list().models == (second,)

    def test_names_that_begin_alike_are_not_confused(self) -> None:
        self.repository.put(self.model("vessels"))
        self.repository.put(self.model("vessels-large"))
        assert self.repository.get("vessels").card.name == "vessels"
        self.repository.remove("vessels")
        assert [m.card.name for m in self.repository.list().models] == ["vessels-large"]

    def test_an_unknown_name_is_a_model_error_that_lists_the_known(self) -> None:
        self.repository.put(self.model())
        for unknown in ("nuclei", "vessels:9.9.9"):
            with pytest.raises(ModelError, match=r"vessels:1\.0\.0"):
                self.repository.get(unknown)

    def test_a_broken_model_is_reported_and_does_not_hide_the_others(self) -> None:
        stored = self.repository.put(self.model())
        name = self.break_one()
        listing = self.repository.list()
        assert listing.models == (stored,)
        assert [broken.name for broken in listing.broken] == [name]
        assert "expected" in listing.broken[0].reason
        assert self.repository.get("vessels") == stored

    def test_a_removed_model_is_gone(self) -> None:
        self.repository.put(self.model())
        self.repository.remove("vessels")
        assert self.repository.list() == Listing(())
        with pytest.raises(ModelError):
            self.repository.remove("vessels")

    def test_removing_a_name_with_several_versions_asks_which(self) -> None:
        for version in ("1.0.0", "2.0.0"):
            self.repository.put(self.model(version=version))
        with pytest.raises(ModelError, match="version"):
            self.repository.remove("vessels")
        self.repository.remove("vessels:1.0.0")
        assert self.repository.get("vessels").card.version == "2.0.0"


def write_bare_affine(path: Path, seed: int = 0) -> None:
    """Write ONNX without a card: one channel in, two classes out; weights depend on the seed."""
    random = np.random.default_rng(seed)
    write_affine_onnx(path, random.random((2, 1), np.float32), random.random(2, np.float32))

"""Contract suite of `Packager`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ..domain.cards.model_card import ModelCard
from ..domain.errors import ModelError, OutputError
from ..domain.labels.postprocessing import KeepLargest
from ..ports.model import Model
from ..ports.packager import Packager
from ..ports.runtime import InferenceRuntime
from .affine import affine_card, affine_model, write_affine_onnx

WEIGHTS, BIAS = np.array([[0.0], [8.0]], np.float32), np.array([0.0, -4.0], np.float32)


class PackagerContract:
    """Subclass and implement the hooks."""

    suffix: str

    @pytest.fixture(autouse=True)
    def _prepared(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.packager = self.make_packager()

    def make_packager(self) -> Packager:
        """Return a packager."""
        raise NotImplementedError

    def open(self, model: Model) -> InferenceRuntime:
        """Load an ONNX model."""
        raise NotImplementedError

    def package(self, card: ModelCard, name: str = "") -> tuple[Path, tuple[str, ...]]:
        """Package a small network with a card; return the package and what it cannot say."""
        path, made = self.folder / "model.onnx", self.folder / (name or f"package{self.suffix}")
        write_affine_onnx(path, WEIGHTS, BIAS)
        model = affine_model(path, card)
        runtime = self.open(model)
        try:
            return made, self.packager.package(model, runtime, made)
        finally:
            runtime.close()

    def test_the_same_model_gives_the_same_bytes(self) -> None:
        first = self.package(affine_card(1, 2))[0].read_bytes()
        assert first
        assert self.package(affine_card(1, 2))[0].read_bytes() == first

    def test_what_a_package_cannot_say_is_returned(self) -> None:
        card = affine_card(1, 2)
        more = replace(card, output=replace(card.output, postprocessing=(KeepLargest((1,)),)))
        assert set(self.package(more)[1]) > set(self.package(card)[1])

    @pytest.mark.parametrize("name", ["package.other", "missing/package"])
    def test_a_path_that_cannot_be_written_is_refused(self, name: str) -> None:
        name = f"{name}{self.suffix}" if name.startswith("missing") else name
        with pytest.raises(OutputError):
            self.package(affine_card(1, 2), name)
        assert not (self.folder / name).exists()

    def test_one_of_several_outputs_is_refused(self) -> None:
        card = affine_card(1, 2)
        with pytest.raises(ModelError, match="several outputs"):
            self.package(replace(card, output=replace(card.output, tensor="0")))

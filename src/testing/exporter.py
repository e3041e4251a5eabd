"""Contract suite of `ModelExporter`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..domain.cards.model_card import ModelCard
from ..domain.errors import ModelError
from ..domain.inference.patches import Tiling
from ..ports.exporter import Checkpoint, Exported, ModelExporter
from .affine import BIAS, WEIGHTS, Floats, affine_card, affine_logits

LEAST_OPSET = 20
_TOLERANCE = 1e-5
_DIVISOR = 4


class ModelExporterContract:
    """Subclass and implement the hooks.

    Exported files are read with onnx and run with ONNX Runtime, never with an adapter.
    """

    @pytest.fixture(autouse=True)
    def _prepared(self, tmp_path: Path) -> None:
        self.source, self.target = tmp_path / "source", tmp_path / "target"
        self.source.mkdir()
        self.target.mkdir()
        self.exporter = self.make_exporter()

    def make_exporter(self) -> ModelExporter:
        """Return an exporter."""
        raise NotImplementedError

    def affine_checkpoint(self, folder: Path, weights: Floats, bias: Floats) -> Checkpoint:
        """Write a checkpoint of ``scores = weights @ image + bias``; ``(K, C)`` and ``(K,)``."""
        raise NotImplementedError

    def export(self, card: ModelCard | None = None) -> Exported:
        """Export the known network to ``self.target``."""
        checkpoint = self.affine_checkpoint(self.source, WEIGHTS, BIAS)
        return self.exporter.export(checkpoint, card or _card(), self.target / "model.onnx")

    def test_writes_one_file_and_nothing_else(self) -> None:
        exported = self.export()
        assert exported.path == self.target / "model.onnx"
        assert list(self.target.iterdir()) == [exported.path]

    def test_the_file_is_valid_onnx_of_a_recent_opset(self) -> None:
        import onnx

        model = onnx.load(self.export().path)
        onnx.checker.check_model(model, full_check=True)
        assert all(entry.version >= LEAST_OPSET for entry in model.opset_import if entry.domain == "")

    def test_image_and_scores_are_float32(self) -> None:
        session = _session(self.export().path)
        assert [(i.name, i.type, i.shape[1]) for i in session.get_inputs()] == [("image", "tensor(float)", 2)]
        assert [(o.name, o.type) for o in session.get_outputs()] == [("scores", "tensor(float)")]

    def test_dynamic_is_what_the_graph_declares(self) -> None:
        exported = self.export()
        sides = _session(exported.path).get_inputs()[0].shape
        assert all(isinstance(side, str) for side in (sides[0], *sides[2:])) == exported.dynamic

    @pytest.mark.parametrize("cases", [1, 2])
    @pytest.mark.parametrize("steps", [(1, 1, 1), (3, 5, 7), (9, 1, 2)])
    def test_logits_are_the_networks_at_any_size(self, cases: int, steps: tuple[int, int, int]) -> None:
        exported = self.export()
        shape = [_DIVISOR * step for step in steps] if exported.dynamic else [8, 12, 16]
        batch = np.random.default_rng(0).standard_normal((cases, 2, *shape), np.float32)
        (logits,) = _session(exported.path).run(None, {"image": batch})
        np.testing.assert_allclose(logits, affine_logits(batch, WEIGHTS, BIAS), rtol=0, atol=_TOLERANCE)

    def test_provenance_is_plain_data_that_names_the_source_by_its_hash(self) -> None:
        checkpoint = self.affine_checkpoint(self.source, WEIGHTS, BIAS)
        exported = self.exporter.export(checkpoint, _card(), self.target / "model.onnx")
        digest = hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
        text = json.dumps(dict(exported.provenance))
        assert digest in text
        assert checkpoint.path.name in text
        assert str(self.source) not in text

    def test_the_checkpoint_stays_as_it_was(self) -> None:
        checkpoint = self.affine_checkpoint(self.source, WEIGHTS, BIAS)
        before = checkpoint.path.read_bytes()
        self.exporter.export(checkpoint, _card(), self.target / "model.onnx")
        assert checkpoint.path.read_bytes() == before
        assert list(self.source.iterdir()) == [checkpoint.path]

    def test_exporting_again_gives_the_same_bytes(self) -> None:
        assert self.export().path.read_bytes() == self.export().path.read_bytes()

    def test_prints_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.export()
        assert tuple(capfd.readouterr()) == ("", "")

    @pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", bytes(range(256))])
    def test_a_missing_or_broken_checkpoint_is_refused_by_name_and_leaves_nothing(self, content: bytes | None) -> None:
        good = self.affine_checkpoint(self.source, WEIGHTS, BIAS)
        broken = Checkpoint(good.path.with_stem("broken"), good.network)
        if content is not None:
            broken.path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            self.exporter.export(broken, _card(), self.target / "model.onnx")
        assert broken.path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(self.target.iterdir())

    def test_a_card_with_other_channels_is_refused_and_leaves_nothing(self) -> None:
        with pytest.raises(ModelError):
            self.export(_card(channels=3))
        assert not list(self.target.iterdir())


def _card(channels: int = 2) -> ModelCard:
    return affine_card(channels, 3, tiling=Tiling((8, 12, 16), divisor=_DIVISOR))


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

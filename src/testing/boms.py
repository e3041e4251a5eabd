"""Contract suite of `BomWriter`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..ports.boms import BomWriter
from ..ports.model import Model
from .affine import affine_card

MODEL = Model(Path("cells.onnx"), replace(affine_card(1, 2), name="cells", version="2.1.0"), "ab" * 32, "cd" * 32)


class BomWriterContract:
    """Subclass and implement the hook."""

    def make_writer(self) -> BomWriter:
        """Return a writer."""
        raise NotImplementedError

    def test_a_models_bill_names_it_its_licence_use_and_hashes(self) -> None:
        bill = self.make_writer().model_bom(MODEL).decode()
        card = MODEL.card
        for text in (card.name, card.version, card.licence, card.intended_use, MODEL.sha256, MODEL.weights_sha256):
            assert text in bill

    def test_the_same_gives_the_same_bytes(self) -> None:
        assert self.make_writer().model_bom(MODEL) == self.make_writer().model_bom(MODEL)
        assert self.make_writer().installation_bom() == self.make_writer().installation_bom()

    def test_another_file_gives_another_bill(self) -> None:
        models = MODEL, replace(MODEL, sha256="ef" * 32), replace(MODEL, weights_sha256="ef" * 32)
        writer = self.make_writer()
        assert len({writer.model_bom(model) for model in models}) == len(models)

    def test_an_installations_bill_names_what_it_needs_with_versions(self) -> None:
        from importlib.metadata import version

        bill = self.make_writer().installation_bom().decode()
        for name in ("numpy", "onnxruntime", "nibabel"):
            assert name in bill
            assert version(name) in bill

"""Models in a folder of self-describing ONNX files."""

from __future__ import annotations

from pathlib import Path

from ....domain.errors import ModelError
from ....ports.model import Model, ModelFiles
from ....ports.model_repository import BrokenModel, Listing, ModelRepository
from ....ports.signatures import signature_of
from ...disk import output_errors


class ModelDirectory(ModelRepository):
    """Models in a folder, with a file ``NAME-VERSION.onnx`` for each model.

    Other ``.onnx`` files in the folder count too; the card has their name and version.
    """

    def __init__(self, folder: Path, files: ModelFiles) -> None:
        self._folder = folder
        self._files = files

    def list(self) -> Listing:
        models: list[Model] = []
        broken: list[BrokenModel] = []
        for path in sorted(self._folder.glob("*.onnx")):
            try:
                models.append(self._files.read(path))
            except ModelError as error:
                broken.append(BrokenModel(path.name, str(error)))
        return Listing.ordered(models, broken)

    def put(self, model: Model) -> Model:
        with output_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        same = [m.path for m in self.list().models if m.card.reference == model.card.reference]
        stored = self._files.write(model.path, model.card, self._folder / f"{model.card.slug}.onnx")
        for path in same:
            if path != stored.path:
                path.unlink(missing_ok=True)
        return stored

    def remove(self, reference: str) -> None:
        target = self.list().single(reference)
        with output_errors(target.path):
            target.path.unlink()
            signature_of(target.path).unlink(missing_ok=True)


class LayeredModels(ModelRepository):
    """A writable repository over a read-only one of bundled models."""

    def __init__(self, own: ModelRepository, bundled: ModelRepository) -> None:
        self._own = own
        self._bundled = bundled

    def list(self) -> Listing:
        """See ModelRepository.list; an own model hides a bundled one of the same name and version."""
        own, bundled = self._own.list(), self._bundled.list()
        hidden = {model.card.reference for model in own.models}
        models = [*own.models, *(model for model in bundled.models if model.card.reference not in hidden)]
        return Listing.ordered(models, (*own.broken, *bundled.broken))

    def put(self, model: Model) -> Model:
        return self._own.put(model)

    def remove(self, reference: str) -> None:
        """See ModelRepository.remove; a bundled model stays."""
        if not self._own.list().matching(reference) and self._bundled.list().matching(reference):
            raise ModelError(
                reference, expected="a model that was added", got="one that comes with voxport", do="leave it be"
            )
        self._own.remove(reference)

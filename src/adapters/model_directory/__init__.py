"""A folder of self-describing ONNX files."""

from __future__ import annotations

import re
from pathlib import Path

from ...domain.errors import ModelError, OutputError
from ...ports.model import Model, ModelFiles
from ...ports.model_repository import BrokenModel, Listing, ModelRepository


class ModelDirectory:
    """ModelRepository in a folder: one file ``NAME-VERSION.onnx`` for each model it puts there.

    Files that were put there by hand under any name ending in ``.onnx`` count as well; the card says who they are.
    """

    def __init__(self, folder: Path, files: ModelFiles) -> None:
        self._folder = folder
        self._files = files

    def list(self) -> Listing:
        """See ModelRepository.list."""
        models: list[Model] = []
        broken: list[BrokenModel] = []
        for path in sorted(self._folder.glob("*.onnx")):
            try:
                models.append(self._files.read(path))
            except ModelError as error:
                broken.append(BrokenModel(path.name, str(error)))
        models.sort(key=_order)
        return Listing(tuple(models), tuple(broken))

    def get(self, reference: str) -> Model:
        """See ModelRepository.get."""
        return _pick(self.list(), reference)

    def put(self, model: Model) -> Model:
        """See ModelRepository.put."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.cannot_write(str(self._folder), error) from None
        same = [m.path for m in self.list().models if m.card.reference == model.card.reference]
        stored = self._files.write(model.path, model.card, self._folder / _file_name(model))
        for path in same:
            if path != stored.path:
                path.unlink(missing_ok=True)
        return stored

    def remove(self, reference: str) -> None:
        """See ModelRepository.remove."""
        matching = _matching(self.list(), reference)
        if len(matching) > 1:
            raise ModelError(
                reference,
                expected="one version",
                got=", ".join(m.card.reference for m in matching),
                do="name the version as well",
            )
        target = matching[0] if matching else self.get(reference)
        try:
            target.path.unlink()
        except OSError as error:
            raise OutputError.cannot_write(str(target.path), error) from None


class LayeredModels:
    """ModelRepository over a writable one and one that comes with the program, whose models can only be read."""

    def __init__(self, own: ModelRepository, bundled: ModelRepository) -> None:
        self._own = own
        self._bundled = bundled

    def list(self) -> Listing:
        """See ModelRepository.list; an own model hides a bundled one of the same name and version."""
        own, bundled = self._own.list(), self._bundled.list()
        hidden = {model.card.reference for model in own.models}
        models = [*own.models, *(model for model in bundled.models if model.card.reference not in hidden)]
        return Listing(tuple(sorted(models, key=_order)), (*own.broken, *bundled.broken))

    def get(self, reference: str) -> Model:
        """See ModelRepository.get."""
        return _pick(self.list(), reference)

    def put(self, model: Model) -> Model:
        """See ModelRepository.put."""
        return self._own.put(model)

    def remove(self, reference: str) -> None:
        """See ModelRepository.remove; a bundled model stays."""
        if not _matching(self._own.list(), reference) and _matching(self._bundled.list(), reference):
            raise ModelError(
                reference, expected="a model that was added", got="one that comes with voxport", do="leave it be"
            )
        self._own.remove(reference)


def _matching(listing: Listing, reference: str) -> list[Model]:
    return [m for m in listing.models if reference in (m.card.name, m.card.reference)]


def _pick(listing: Listing, reference: str) -> Model:
    matching = _matching(listing, reference)
    if not matching:
        names = ", ".join(model.card.reference for model in listing.models) or "none"
        broken = f" (broken: {', '.join(b.name for b in listing.broken)})" if listing.broken else ""
        raise ModelError(
            reference, expected=f"one of the models {names}{broken}", got="another name", do="see voxport models list"
        )
    return matching[-1]


def _order(model: Model) -> tuple[str, tuple[tuple[int, int, str], ...], str]:
    return model.card.name, _version_key(model.card.version), model.path.name


def _file_name(model: Model) -> str:
    return f"{model.card.name}-{model.card.version}.onnx"


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers in order of size, so that 1.10.0 comes after 1.9.0; a pre-release before its release."""
    parts = re.findall(r"\d+|[A-Za-z]+|-", version.split("+")[0])
    key = [(1, int(p), "") if p.isdigit() else (-1, 0, p) for p in parts]
    return (*key, (0, 0, ""))

"""A folder of self-describing ONNX files."""

from __future__ import annotations

import re
from pathlib import Path

from ...domain.errors import ModelError, OutputError
from ...ports.model import Model, ModelFiles
from ...ports.model_repository import BrokenModel, Listing


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
        models.sort(key=lambda model: (model.card.name, _version_key(model.card.version), model.path.name))
        return Listing(tuple(models), tuple(broken))

    def get(self, reference: str) -> Model:
        """See ModelRepository.get."""
        listing = self.list()
        matching = [m for m in listing.models if reference in (m.card.name, m.card.reference)]
        if not matching:
            names = ", ".join(model.card.reference for model in listing.models) or "none"
            broken = f" (broken: {', '.join(b.name for b in listing.broken)})" if listing.broken else ""
            raise ModelError(
                reference,
                expected=f"one of the models in {self._folder}: {names}{broken}",
                got="another name",
                do="see voxport models list",
            )
        return matching[-1]

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
        matching = [m for m in self.list().models if reference in (m.card.name, m.card.reference)]
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


def _file_name(model: Model) -> str:
    return f"{model.card.name}-{model.card.version}.onnx"


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers in order of size, so that 1.10.0 comes after 1.9.0; a pre-release before its release."""
    parts = re.findall(r"\d+|[A-Za-z]+|-", version.split("+")[0])
    key = [(1, int(p), "") if p.isdigit() else (-1, 0, p) for p in parts]
    return (*key, (0, 0, ""))

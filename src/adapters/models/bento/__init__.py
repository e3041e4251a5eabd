"""BentoML's model store, with a self-describing ONNX file in each BentoML model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ....domain.errors import ModelError, OutputError
from ....ports.locks import Locks
from ....ports.model import Model, ModelFiles
from ....ports.model_repository import BrokenModel, Listing, ModelRepository
from ...disk import output_errors
from .library import describe, is_bare, open_store, tag_of, untracked_bentoml
from .tensors import BentoTensorModels

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore

__all__ = ["BentoStore", "BentoTensorModels", "untracked_bentoml"]


class BentoStore(ModelRepository):
    """Models in BentoML's model store, with a BentoML model ``NAME:VERSION`` for each model.

    Only the self-describing ONNX file inside is read, under any tag; models without one are ignored. BentoML's
    description is written for other users and never read, because custom objects are pickles.

    Args:
        files: reads and writes the ONNX files.
        locks: exclude other writers.
        home: BentoML's home folder with the store ``models``; None for BentoML's default (BENTOML_HOME).
    """

    def __init__(self, files: ModelFiles, locks: Locks, home: Path | None = None) -> None:
        self._files, self._locks = files, locks
        self._home = home

    def list(self) -> Listing:
        models: list[Model] = []
        broken: list[BrokenModel] = []
        # bentoml.models.list() fails as a whole where one model is broken, and takes 3 ms a model
        for path in sorted(self._folder.glob("*/*/*.onnx")):
            try:
                models.append(self._files.read(path))
            except ModelError as error:
                if path.exists() and not is_bare(path):  # not removed meanwhile, and not without a card
                    broken.append(BrokenModel(_tag_at(path.parent), f"{_tag_at(path.parent)}: {error}"))
        return Listing.ordered(models, broken)

    def put(self, model: Model) -> Model:
        """See ModelRepository.put.

        Raises:
            ModelError: also for a name that BentoML does not accept, or that another of its models has.
        """
        tag = tag_of(model.card)
        with output_errors(self._folder), self._alone() as stage:
            return self._put(model, tag, stage)

    def remove(self, reference: str) -> None:
        target = self.list().single(reference)
        with output_errors(target.path.parent), self._alone():
            self._delete(target.path.parent)

    @cached_property
    def _store(self) -> ModelStore:
        return open_store(self._home)

    @property
    def _folder(self) -> Path:
        return Path(self._store._path)

    @contextmanager
    def _alone(self) -> Iterator[Path]:
        """Exclude other writers; yields an empty folder on the store's file system, outside the store.

        BentoML treats any folder in its store as a model, and has no lock.
        """
        private = self._folder.parent / ".voxport"
        with self._locks.hold(private / "lock"):
            stage = private / "stage"
            shutil.rmtree(stage, ignore_errors=True)  # of a killed process
            stage.mkdir()
            try:
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)

    def _put(self, model: Model, tag: str, stage: Path) -> Model:
        from bentoml._internal.models import ModelStore

        name, version = tag.split(":")
        entry = self._folder / name / version
        replaced = [m.path for m in self.list().models if m.card.reference == model.card.reference]
        if _in_use(entry) and entry not in [path.parent for path in replaced]:
            raise ModelError(
                model.card.reference,
                expected="a free place in BentoML's store",
                got=f"another or a broken model at {tag}",
                do=f"remove it with bentoml models delete {tag}, or change the version in the card",
            )
        written = self._files.write(model.path, model.card, stage / f"{model.card.slug}.onnx")
        with untracked_bentoml().models.create(tag, **describe(written), _model_store=ModelStore(stage)):
            pass  # files written here go through the system's temporary folder, which may be too small
        written.path.replace(stage / name / version / written.path.name)
        stored = entry / written.path.name
        _move(stage / name / version, entry, last=stored.name)
        (stage / name / "latest").replace(self._folder / name / "latest")
        for path in replaced:
            if path.parent != entry:
                self._delete(path.parent)
            elif path != stored:
                path.unlink(missing_ok=True)
        return self._files.read(stored)

    def _delete(self, entry: Path) -> None:
        tag = _tag_at(entry)
        try:
            untracked_bentoml().models.delete(tag, _model_store=self._store)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001
            # after deletion BentoML reads the other versions, and fails in many ways if one is broken
            if entry.exists():
                raise OutputError.cannot_write(tag, f"{type(error).__name__} from BentoML") from None


def _tag_at(entry: Path) -> str:
    return f"{entry.parent.name}:{entry.name}"


def _in_use(entry: Path) -> bool:
    return entry.is_dir() and any(entry.iterdir())


def _move(staged: Path, entry: Path, last: str) -> None:
    """Move a staged model to its place: by rename, or file by file with ``last`` last if one exists."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    if not _in_use(entry):
        staged.rename(entry)
        return
    for path in sorted(staged.iterdir(), key=lambda p: p.name == last):
        path.replace(entry / path.name)

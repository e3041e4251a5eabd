"""Port for models by name and version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ..domain.errors import ModelError, UnknownModelError
from .model import Model


@dataclass(frozen=True)
class BrokenModel:
    """A model that is stored but cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds: usable models by name and version, and broken ones."""

    models: tuple[Model, ...]
    broken: tuple[BrokenModel, ...] = ()

    @classmethod
    def ordered(cls, models: Iterable[Model], broken: Iterable[BrokenModel] = ()) -> Listing:
        """A listing of models that come in any order."""
        return cls(tuple(sorted(models, key=lambda m: (m.card.sort_key, m.path.name))), tuple(broken))

    def matching(self, reference: str) -> tuple[Model, ...]:
        """The model called ``name:version``, or all versions of ``name``, the highest last."""
        return tuple(m for m in self.models if m.card.answers_to(reference))

    def pick(self, reference: str) -> Model:
        """The model called ``name:version``, or the highest version of ``name``. Raises UnknownModelError."""
        matching = self.matching(reference)
        if matching:
            return matching[-1]
        names = ", ".join(model.card.reference for model in self.models) or "none"
        broken = f" (broken: {', '.join(b.name for b in self.broken)})" if self.broken else ""
        raise UnknownModelError(
            reference, expected=f"one of the models {names}{broken}", got="another name", do="see voxport models list"
        )

    def single(self, reference: str) -> Model:
        """The model called ``name:version``, or the only version of ``name``. Raises ModelError if it is not one."""
        matching = self.matching(reference)
        if len(matching) > 1:
            versions = ", ".join(m.card.reference for m in matching)
            raise ModelError(reference, expected="one version", got=versions, do="name the version as well")
        return self.pick(reference)


class ModelRepository(Protocol):
    """A place that keeps self-describing models."""

    def list(self) -> Listing:
        """All models, ordered by name and version; a broken one does not hide the others."""

    def get(self, reference: str) -> Model:
        """The model ``name:version``, or the highest version of ``name``. Raises ModelError if missing or broken."""
        return self.list().pick(reference)

    def put(self, model: Model) -> Model:
        """Keep a copy of a model under its card's name and version, replacing one of the same; all or nothing.

        Raises:
            ModelError: the file cannot carry its card.
            OutputError: the repository cannot be written.
        """

    def remove(self, reference: str) -> None:
        """Forget the model called ``name:version`` (or ``name``, if it has one version). Raises ModelError."""

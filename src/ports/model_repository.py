"""Keeping models by name and version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class ModelRepository(Protocol):
    """A place that keeps self-describing models."""

    def list(self) -> Listing:
        """All models, ordered by name and version; a broken one does not hide the others."""
        ...

    def get(self, reference: str) -> Model:
        """The model called ``name:version``, or the highest version of ``name``.

        Raises:
            ModelError: there is none, or it is broken; says which there are.
        """
        ...

    def put(self, model: Model) -> Model:
        """Keep a copy of a model under its card's name and version, replacing one of the same; all or nothing.

        Raises:
            ModelError: the file cannot carry its card.
            OutputError: the repository cannot be written.
        """
        ...

    def remove(self, reference: str) -> None:
        """Forget the model called ``name:version`` (or ``name``, if it has one version). Raises ModelError."""
        ...

"""Models that stay loaded: found, loaded and warmed up in the background, picked up and dropped as they come and go."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...domain.errors import BusyError, ModelError, UnknownModelError, VoxportError
from ...domain.geometry.grid import shape3
from ...domain.inference.patches import plan_tiles
from ...domain.run import RunOptions
from ...ports.model import Model
from ...ports.model_repository import BrokenModel, Listing, ModelRepository
from ..segmentation.prepare import open_inferer
from .loading import LoadedModel, ModelOpener

State = Literal["loading", "ready", "broken"]
_RETRY_SECONDS = 5.0
_WHOLE_AXIS = 32  # voxels of a dummy input along an axis that the network takes whole


@dataclass(frozen=True)
class ServedModel:
    """A model and how far it is: loading, ready to score, or broken for a reason."""

    model: Model
    state: State
    loaded: LoadedModel | None = None
    reason: str | None = None
    seconds_per_voxel: float = 0.0

    @property
    def reference(self) -> str:
        """The model's ``name:version``."""
        return self.model.card.reference


@dataclass(frozen=True)
class Catalogue:
    """What is served at one moment: models in the repository's order, broken files, and the default model."""

    models: tuple[ServedModel, ...] = ()
    broken: tuple[BrokenModel, ...] = ()
    default: str | None = None
    default_missing: str | None = "models are being looked for"


class ServedModels:
    """Keeps a repository's ONNX models loaded, and follows what is added, replaced and removed.

    Nothing is served that did not score a dummy input first; a file whose weights are not those of its certificate
    is broken. Safe for several threads.
    """

    def __init__(
        self, opener: ModelOpener, repository: ModelRepository, default: str, look_every_seconds: float = 5.0
    ) -> None:
        self._opener, self._repository, self._default = opener, repository, default
        self._look_every_seconds = look_every_seconds
        self._catalogue = Catalogue()
        self._was_complete = False
        self._looked = threading.Event()
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        """Look for models now and every few seconds, in a thread of its own."""
        self._watch = threading.Thread(target=self._follow, name="voxport-models", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop looking, and forget every model."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join()
        self._catalogue = Catalogue()

    @property
    def catalogue(self) -> Catalogue:
        """What is served now."""
        return self._catalogue

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all models have been looked at once, sound or not; whether they have."""
        return self._looked.wait(seconds)

    @property
    def ready(self) -> bool:
        """Whether every model was loaded and sound at one time, and the default is now.

        What breaks later does not take the service down with it.
        """
        default = next((m for m in self._catalogue.models if m.reference == self._catalogue.default), None)
        return self._was_complete and default is not None and default.state == "ready"

    def find(self, reference: str | None = None) -> ServedModel:
        """The model called ``name:version``, the highest version of ``name``, or the default; in whatever state.

        Raises:
            UnknownModelError: there is none of this name.
            ModelError: the default model is missing or broken.
        """
        catalogue = self._catalogue
        wanted = catalogue.default if reference is None else reference
        matching = [m for m in catalogue.models if wanted is not None and m.model.card.answers_to(wanted)]
        if matching:
            return matching[-1]
        if reference is None and catalogue.default_missing is not None:
            do = "see /v1/models, and name one of them"
            raise ModelError(self._default, expected="the default model", got=catalogue.default_missing, do=do)
        names = ", ".join(m.reference for m in catalogue.models) or "none"
        raise UnknownModelError(
            str(wanted)[:200], expected=f"one of the models {names}", got="another name", do="see /v1/models"
        )

    def take(self, reference: str | None = None) -> LoadedModel:
        """The model of ``find``, loaded.

        Raises:
            UnknownModelError, ModelError: as ``find``, and where the model is broken.
            BusyError: it is still being loaded.
        """
        found = self.find(reference)
        if found.state == "loading":
            got = "one that is still being loaded"
            raise BusyError(found.reference, expected="a model", got=got, retry_after_seconds=_RETRY_SECONDS)
        if found.loaded is None:
            do = "replace the model file, or take another model"
            raise ModelError(found.reference, expected="a sound model", got=found.reason or "a broken one", do=do)
        return found.loaded

    def refresh(self) -> None:
        """Look for models once, and load what is new; what is loaded already stays."""
        with self._refreshing:
            listing, default, missing = self._look()
            known = {m.model.sha256: m for m in self._catalogue.models if m.state != "loading"}
            models = [known.get(model.sha256) or ServedModel(model, "loading") for model in listing.models]
            models = [_renamed(served, model) for served, model in zip(models, listing.models, strict=True)]
            self._catalogue = Catalogue(tuple(models), listing.broken, default, missing)
            for index, served in enumerate(models):
                if served.state == "loading" and not self._stop.is_set():
                    models[index] = self._load(served.model)
                    self._catalogue = Catalogue(tuple(models), listing.broken, default, missing)
            complete = missing is None and not listing.broken and all(m.state == "ready" for m in models)
            self._was_complete = self._was_complete or complete
            self._looked.set()

    def _follow(self) -> None:
        while True:
            self.refresh()
            if self._stop.wait(self._look_every_seconds):
                return

    def _look(self) -> tuple[Listing, str | None, str | None]:
        """The models to serve, with the default among them even if it is a file elsewhere."""
        try:
            listing = self._repository.list()
        except (VoxportError, OSError) as error:
            listing = Listing((), (BrokenModel("models", str(error)),))
        listing = Listing(tuple(m for m in listing.models if m.format == "onnx"), listing.broken)
        try:
            default = self._opener.find(self._default)
        except VoxportError as error:
            return listing, None, str(error)
        if default.card.reference not in (m.card.reference for m in listing.models):
            listing = Listing((*listing.models, default), listing.broken)
        return listing, default.card.reference, None

    def _load(self, model: Model) -> ServedModel:
        try:
            loaded = self._opener.load(model)
            return ServedModel(model, "ready", loaded, None, _warmed_up(loaded))
        except VoxportError as error:
            return ServedModel(model, "broken", reason=str(error))
        except Exception as error:  # noqa: BLE001 - one bad file must not end the watch over the others
            return ServedModel(model, "broken", reason=f"{type(error).__name__} while it was loaded")


def _renamed(served: ServedModel, model: Model) -> ServedModel:
    """The same bytes under another path or card stay loaded."""
    return served if served.model == model else ServedModel(model, "loading")


def _warmed_up(loaded: LoadedModel) -> float:
    """Score a dummy input twice; seconds a voxel of the second time."""
    card = loaded.model.card
    tiling = card.tiling if loaded.tuned is None else replace(card.tiling, patch=loaded.tuned.patch)
    with open_inferer(loaded, RunOptions()) as inferer:
        shape = shape3(edge or _WHOLE_AXIS for edge in tiling.patch)
        tile = plan_tiles(shape, tiling, fixed=inferer.fixed).tile
        # noise, as a flat input is not scored a second time
        dummy = np.random.default_rng(0).random((inferer.batch, len(card.input.channels), *tile), np.float32)
        inferer(dummy)
        began = time.perf_counter()
        inferer(dummy)
    return (time.perf_counter() - began) / dummy[:, 0].size

"""Resident models: loaded and warmed up in the background, updated as files change."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...domain.errors import BusyError, ModelError, UnknownModelError, VoxportError
from ...domain.geometry.grid import shape3
from ...domain.inference.patches import plan_tiles
from ...domain.run import RunOptions
from ...ports.model import Model
from ...ports.model_repository import BrokenModel, Listing, ModelRepository
from ..assurance.signing import Trust
from ..segmentation.preparation.prepare import open_inferer
from .loading import LoadedModel, ModelOpener

State = Literal["loading", "ready", "broken"]
_RETRY_SECONDS = 5.0
_log = logging.getLogger("voxport.models")
_WHOLE_AXIS = 32  # voxels of a dummy input along a whole axis


@dataclass(frozen=True)
class ServedModel:
    """A model and its state: loading, ready, or broken with a reason; ``refused`` for want of a signature."""

    model: Model
    state: State
    loaded: LoadedModel | None = None
    reason: str | None = None
    seconds_per_voxel: float = 0.0
    refused: bool = False

    @property
    def reference(self) -> str:
        """The model's ``name:version``."""
        return self.model.card.reference


@dataclass(frozen=True)
class Catalogue:
    """Snapshot of the served models in the repository's order, broken files, and the default model."""

    models: tuple[ServedModel, ...] = ()
    broken: tuple[BrokenModel, ...] = ()
    default: str | None = None
    default_missing: str | None = "models are being looked for"


class ServedModels:
    """Keeps a repository's ONNX models loaded, and follows additions, replacements and removals.

    A model is served after it has inferred a dummy input. A file whose weights do not match its certificate is
    broken, as is one without the signature that ``trust`` asks for. Thread-safe.
    """

    def __init__(
        self,
        opener: ModelOpener,
        repository: ModelRepository,
        default: str,
        look_every_seconds: float = 5.0,
        trust: Trust | None = None,
    ) -> None:
        self._opener, self._repository, self._default = opener, repository, default
        self._look_every_seconds, self._trust = look_every_seconds, trust
        self._catalogue = Catalogue()
        self._was_complete = False
        self._logged: set[tuple[str, str, int]] = set()
        self._looked = threading.Event()
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        """Start a thread that refreshes the models now and every few seconds."""
        self._watch = threading.Thread(target=self._follow, name="voxport-models", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop the thread and unload every model."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join()
        self._catalogue = Catalogue()

    @property
    def catalogue(self) -> Catalogue:
        """Current snapshot."""
        return self._catalogue

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until every model has been tried once; return whether that happened in time."""
        return self._looked.wait(seconds)

    @property
    def ready(self) -> bool:
        """Whether every model has been ready at some time, and the default model is now.

        A later failure of another model does not make the service unready.
        """
        default = next((m for m in self._catalogue.models if m.reference == self._catalogue.default), None)
        return self._was_complete and default is not None and default.state == "ready"

    def find(self, reference: str | None = None) -> ServedModel:
        """Return the model ``name:version``, the highest version of ``name``, or the default, in any state.

        Raises:
            UnknownModelError: no such model.
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
        """Return the loaded model of `find`.

        Raises:
            UnknownModelError, ModelError: as `find`; also if the model is broken.
            BusyError: it is still loading.
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
        """Scan the repository once and load new models; loaded ones are kept."""
        with self._refreshing:
            listing, default, missing = self._look()
            tried = (m for m in self._catalogue.models if m.state != "loading" and not m.refused)
            known = {m.model.sha256: m for m in tried}
            # a model whose path or card has changed is loaded again; signatures are looked at each time
            models = [
                self._refused(model)
                or (served if served is not None and served.model == model else ServedModel(model, "loading"))
                for model, served in ((model, known.get(model.sha256)) for model in listing.models)
            ]
            self._catalogue = Catalogue(tuple(models), listing.broken, default, missing)
            self._log_problems(models, listing.broken, missing)
            for index, served in enumerate(models):
                if served.state == "loading" and not self._stop.is_set():
                    models[index] = self._load(served.model)
                    self._catalogue = Catalogue(tuple(models), listing.broken, default, missing)
            complete = missing is None and not listing.broken and all(m.state == "ready" for m in models)
            self._was_complete = self._was_complete or complete
            self._log_problems(models, listing.broken, missing)
            self._looked.set()

    def _log_problems(self, models: Sequence[ServedModel], broken: Sequence[BrokenModel], missing: str | None) -> None:
        """Log each model that cannot be used, once until it changes."""
        found = {(b.name, b.reason, logging.WARNING) for b in broken}
        found |= {(m.reference, m.reason or "", logging.WARNING) for m in models if m.state == "broken"}
        if missing is not None:
            found.add((self._default, missing, logging.ERROR))
        for name, reason, level in sorted(found - self._logged):
            what = "the default model %s cannot be used: %s" if level == logging.ERROR else "model %s is broken: %s"
            _log.log(level, what, name, reason, extra={"fields": {"model": name, "event": "broken"}})
        self._logged = found

    def _follow(self) -> None:
        while True:
            self.refresh()
            if self._stop.wait(self._look_every_seconds):
                return

    def _look(self) -> tuple[Listing, str | None, str | None]:
        """Return the models to serve, including a default that is a file elsewhere."""
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

    def _refused(self, model: Model) -> ServedModel | None:
        reason = None if self._trust is None else self._trust.refusal(model)
        return None if reason is None else ServedModel(model, "broken", reason=reason, refused=True)

    def _load(self, model: Model) -> ServedModel:
        try:
            # what tune makes of a model is not signed
            loaded = self._opener.load(model, quantised=self._trust is None or not self._trust.required)
            return ServedModel(model, "ready", loaded, None, _warmed_up(loaded))
        except VoxportError as error:
            return ServedModel(model, "broken", reason=str(error))
        except Exception as error:  # noqa: BLE001 - one invalid file must not end the thread
            return ServedModel(model, "broken", reason=f"{type(error).__name__} while it was loaded")


def _warmed_up(loaded: LoadedModel) -> float:
    """Infer a dummy input twice; return the seconds per voxel of the second run."""
    tiling = loaded.model.card.tiling
    with open_inferer(loaded, RunOptions()) as inferer:
        tiling = tiling if inferer.patch is None else replace(tiling, patch=inferer.patch)
        tile = plan_tiles(shape3(edge or _WHOLE_AXIS for edge in tiling.patch), tiling, fixed=inferer.fixed).tile
        return inferer.measure(tile, 2) / math.prod(tile)

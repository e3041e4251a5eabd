"""Where cases are scored: in this process, on the application's use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ... import __version__
from ...domain.cards.model_card import ModelCard
from ...domain.errors import UsageError
from ...domain.run import RESULT_FILES, STATISTICS_TABLE, Outputs, RunOptions
from ...services.segmentation.prepare import memory_limit
from ...services.segmentation.report import curl_line, portable_report

if TYPE_CHECKING:
    from ...application import Application
    from ...services.viewing.sessions import RunProgress

_LOADING_SECONDS = 30.0
_SERVE_URL = "http://127.0.0.1:3000"  # where ``voxport serve`` listens unless told otherwise


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen."""

    card: ModelCard
    default: bool


@dataclass(frozen=True)
class RunEstimate:
    """What a run would take."""

    tiles: int
    seconds: float
    peak_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """How to have the same mask again."""

    voxport: str
    curl: str


class Engine(Protocol):
    """Segments cases. Safe for several threads; every method raises VoxportError."""

    place: str
    """Where volumes are scored, for people."""

    def offers(self) -> Sequence[Offer]:
        """The models that are ready, the default first."""
        ...

    def card(self, model: str) -> ModelCard:
        """The card of ``name:version``."""
        ...

    def estimate(self, inputs: Sequence[Path], model: str, progress: RunProgress) -> RunEstimate:
        """What a run would take; the errors are those that the run would have."""
        ...

    def run(self, inputs: Sequence[Path], model: str, folder: Path, progress: RunProgress) -> Mapping[str, Any]:
        """Segment a case into ``folder``: the mask and the table of statistics; the run's report."""
        ...

    def commands(self, inputs: Sequence[Path], report: Mapping[str, Any]) -> Commands:
        """How to have the mask of a report again."""
        ...


def result_files(folder: Path) -> Outputs:
    """Where an engine puts a case's results."""
    return Outputs(str(folder / RESULT_FILES["mask"]), statistics=str(folder / STATISTICS_TABLE))


class LocalEngine:
    """Scores in this process, in the application's slots."""

    place = "on this machine"

    def __init__(self, application: Application) -> None:
        self._application = application
        self._models = application.served_models
        self._slots = application.slots

    def offers(self) -> Sequence[Offer]:
        """See Engine."""
        self._models.wait(_LOADING_SECONDS)
        catalogue = self._models.catalogue
        ready = [Offer(m.model.card, m.reference == catalogue.default) for m in catalogue.models if m.state == "ready"]
        return sorted(ready, key=lambda offer: not offer.default)

    def card(self, model: str) -> ModelCard:
        """See Engine."""
        card = next((m.model.card for m in self._models.catalogue.models if m.reference == model), None)
        if card is None:
            raise UsageError("model", expected="one of those listed", got="one that is gone", do="choose another")
        return card

    def estimate(self, inputs: Sequence[Path], model: str, progress: RunProgress) -> RunEstimate:
        """See Engine."""
        told = self._application.estimate(
            [str(path) for path in inputs],
            self._models.take(model),
            self._options(),
            progress,
            seconds_per_voxel=self._models.find(model).seconds_per_voxel,
        )
        return RunEstimate(told.prepared.plan.tile_count, told.seconds, told.peak_bytes, told.warnings)

    def run(self, inputs: Sequence[Path], model: str, folder: Path, progress: RunProgress) -> Mapping[str, Any]:
        """See Engine."""
        with self._slots.hold(progress.check):
            loaded = self._models.take(model)
            names = [str(path) for path in inputs]
            done = self._application.segment(names, loaded, result_files(folder), self._options(), progress)
        return portable_report(done, loaded, version=__version__)

    def commands(self, inputs: Sequence[Path], report: Mapping[str, Any]) -> Commands:
        """See Engine."""
        names = [path.name for path in inputs]
        curl = curl_line(_SERVE_URL, names, RESULT_FILES["mask"], report, with_key=False)
        return Commands(str(report["command"]), curl)

    def _options(self) -> RunOptions:
        serving = self._application.settings.serving
        limit = memory_limit(serving.slots, self._application.resources)
        return RunOptions(memory_bytes=serving.memory_bytes or limit)

"""Segment cases in this process: with one model, or with those that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.errors import UsageError
from ...domain.run import Outputs, RunOptions
from ...ports.progress import ProgressListener
from ...ports.segmenter import Offer, RunEstimate
from ..jobs.admission import Slots
from ..pages.cases import case_page
from ..segmentation.estimate import estimate
from ..segmentation.preparation.planning import memory_limit
from ..segmentation.report import run_report, same_again
from ..segmentation.segment import Segmentation, SegmentPorts, segment
from .loading import LoadedModel
from .registry import ServedModels

_LOADING_SECONDS = 30.0


@dataclass(frozen=True)
class LoadedSegmenter:
    """A Segmenter with one model, which is loaded.

    ``version`` is voxport's. ``named``, ``card_file`` and ``threads`` are how the caller chose the model, for the
    command in the report.
    """

    loaded: LoadedModel
    ports: SegmentPorts
    version: str
    named: str | None = None
    card_file: str | None = None
    threads: int | None = None
    seconds_per_voxel: float | None = None
    url: str | None = None

    def offers(self) -> Sequence[Offer]:
        """See Segmenter."""
        return [Offer(self.loaded.model.card, default=True)]

    def card(self, model: str) -> ModelCard:
        """See Segmenter."""
        card = self.loaded.model.card
        if model not in (self.named, card.reference):
            raise UsageError("model", expected=card.reference, got=model[:80], do="load that model")
        return card

    def estimate(
        self, inputs: Sequence[str], model: str, options: RunOptions, progress: ProgressListener
    ) -> RunEstimate:
        """See Segmenter."""
        self.card(model)
        found = estimate(
            inputs,
            self.loaded,
            options,
            progress,
            volumes=self.ports.volumes,
            resources=self.ports.resources,
            scratch=self.ports.scratch,
            seconds_per_voxel=self.seconds_per_voxel,
        )
        return RunEstimate(found.prepared.plan.tile_count, found.seconds, found.peak_bytes, found.warnings)

    def segment(
        self,
        inputs: Sequence[str],
        model: str | None,
        outputs: Outputs,
        options: RunOptions,
        progress: ProgressListener,
    ) -> Mapping[str, Any]:
        """See Segmenter."""
        if model is not None:
            self.card(model)
        return self.run(inputs, outputs, options, progress)[1]

    def run(
        self, inputs: Sequence[str], outputs: Outputs, options: RunOptions, progress: ProgressListener
    ) -> tuple[Segmentation, dict[str, Any]]:
        """Segment a case and write its outputs, the page included, except the report; the run and the report."""
        progress.advance(0)
        done = segment(inputs, self.loaded, outputs, options, progress, ports=self.ports)
        named = self.named or self.loaded.model.card.reference
        how: dict[str, Any] = {"card": self.card_file, "threads": self.threads}
        command = same_again(inputs, named, outputs.mask, self.loaded, done, **how)
        report = run_report(done, self.loaded, version=self.version, command=command)
        if outputs.html is not None and self.ports.pages is not None:
            name = self.ports.volumes.names.stem(PurePath(outputs.mask).name)
            page = case_page(name, report, dict(done.outputs)[outputs.mask], done.figures)
            self.ports.artifacts.write(outputs.html, self.ports.pages.case(page))
        return done, report


@dataclass(frozen=True)
class LocalSegmenter:
    """A Segmenter in this process; runs share ``slots`` and wait for one.

    ``memory_bytes`` limits one run; None divides the free memory among the slots. ``version`` is voxport's.
    """

    models: ServedModels
    slots: Slots
    ports: SegmentPorts
    version: str
    memory_bytes: int | None = None
    url: str | None = None

    def offers(self) -> Sequence[Offer]:
        """See Segmenter."""
        self.models.wait(_LOADING_SECONDS)
        catalogue = self.models.catalogue
        ready = [Offer(m.model.card, m.reference == catalogue.default) for m in catalogue.models if m.state == "ready"]
        return sorted(ready, key=lambda offer: not offer.default)

    def card(self, model: str) -> ModelCard:
        """See Segmenter."""
        self.models.wait(_LOADING_SECONDS)
        card = next((m.model.card for m in self.models.catalogue.models if m.reference == model), None)
        if card is None:
            raise UsageError("model", expected="one of those listed", got="one that is gone", do="choose another")
        return card

    def estimate(
        self, inputs: Sequence[str], model: str, options: RunOptions, progress: ProgressListener
    ) -> RunEstimate:
        """See Segmenter."""
        return self._loaded(model).estimate(inputs, model, self._within_memory(options), progress)

    def segment(
        self,
        inputs: Sequence[str],
        model: str | None,
        outputs: Outputs,
        options: RunOptions,
        progress: ProgressListener,
    ) -> Mapping[str, Any]:
        """See Segmenter."""
        progress.advance(0)
        with self.slots.hold(lambda: progress.advance(0)):
            return self._loaded(model).segment(inputs, model, outputs, self._within_memory(options), progress)

    def _loaded(self, model: str | None) -> LoadedSegmenter:
        if model is not None:
            self.card(model)
        self.models.wait(_LOADING_SECONDS)
        loaded = self.models.take(model)
        pace = self.models.find(loaded.model.card.reference).seconds_per_voxel
        return LoadedSegmenter(loaded, self.ports, self.version, seconds_per_voxel=pace)

    def _within_memory(self, options: RunOptions) -> RunOptions:
        limit = self.memory_bytes or memory_limit(self.slots.count, self.ports.resources)
        return replace(options, memory_bytes=limit)

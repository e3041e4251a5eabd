"""Segment cases with the models that this process serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.errors import UsageError
from ...domain.run import Outputs, RunOptions
from ...ports.progress import ProgressListener
from ...ports.segmenter import Offer, RunEstimate
from ..jobs.admission import Slots
from ..segmentation.estimate import estimate
from ..segmentation.prepare import memory_limit
from ..segmentation.report import run_report, same_again
from ..segmentation.segment import SegmentPorts, segment
from .loading import LoadedModel
from .registry import ServedModels

_LOADING_SECONDS = 30.0


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
        found = estimate(
            inputs,
            self._take(model),
            self._within_memory(options),
            progress,
            volumes=self.ports.volumes,
            resources=self.ports.resources,
            scratch=self.ports.scratch,
            seconds_per_voxel=self.models.find(model).seconds_per_voxel,
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
        progress.advance(0)
        with self.slots.hold(lambda: progress.advance(0)):
            loaded = self._take(model)
            done = segment(inputs, loaded, outputs, self._within_memory(options), progress, ports=self.ports)
        command = same_again(inputs, loaded.model.card.reference, outputs.mask, loaded, done)
        return run_report(done, loaded, version=self.version, command=command)

    def _take(self, model: str | None) -> LoadedModel:
        if model is not None:
            self.card(model)
        self.models.wait(_LOADING_SECONDS)
        return self.models.take(model)

    def _within_memory(self, options: RunOptions) -> RunOptions:
        limit = self.memory_bytes or memory_limit(self.slots.count, self.ports.resources)
        return replace(options, memory_bytes=limit)

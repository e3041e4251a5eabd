"""Rank models by how well their masks agree with true labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...domain.labels.comparison import MEASURES
from ...domain.run import Outputs, RunOptions
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.volume_store import ArrayStore
from ..models.frontier import LabelledCase, copy_volume, labelled_cases, reading_of_labels
from ..models.loading import LoadedModel
from ..models.tune import Quiet
from ..segmentation.segment import SegmentPorts, segment
from .compare import ComparePorts, Comparison, compare

_MASK = "mask"


@dataclass(frozen=True)
class RankPorts:
    """Ports that `rank_models` uses."""

    segment: SegmentPorts
    compare: ComparePorts
    new_store: Callable[[], ArrayStore]
    load: Callable[[Model], LoadedModel]


@dataclass(frozen=True)
class RankedModel:
    """A model, the comparisons of its masks by the names of the cases, and the seconds that segmenting them took."""

    model: str
    runtime: str
    seconds: float
    cases: tuple[tuple[str, Comparison], ...]

    def mean(self, measure: str) -> float | None:
        """Return the mean of a measure over the cases and labels where it is defined."""
        stated = [
            value
            for _, comparison in self.cases
            for label in comparison.labels
            if (value := getattr(label, measure)) is not None
        ]
        return math.fsum(stated) / len(stated) if stated else None

    @property
    def means(self) -> dict[str, float | None]:
        """The mean of every measure."""
        return {measure: self.mean(measure) for measure in MEASURES}


def rank_models(
    models: Sequence[Model],
    folders: Sequence[Path],
    progress: ProgressListener,
    options: RunOptions,
    *,
    ports: RankPorts,
) -> tuple[RankedModel, ...]:
    """Segment labelled cases with each model; return the models, that of the highest mean Dice first.

    ``folders`` are as for `labelled_cases`. Of a model with one label, all that is not zero in the true labels counts.

    Raises:
        InputError: a volume cannot be read, does not fit a card, or its labels lie on another grid.
        ModelError, UsageError: a model cannot be loaded.
    """
    cases = [labelled_cases(folders, model.card, ports.segment.volumes) for model in models]
    ranked = []
    for model, mine in zip(models, cases, strict=True):
        with closing((loaded := ports.load(model)).runtime):
            progress.stage(model.card.reference, len(mine))
            seconds, found = 0.0, []
            for case in mine:
                store, taken = _segmented(case, loaded, options, progress, ports)
                seconds += taken
                found.append((case.name, _compared(case, loaded, options, progress, ports, store)))
                progress.advance(1)
        ranked.append(RankedModel(model.card.reference, loaded.runtime.name, seconds, tuple(found)))
    return tuple(sorted(ranked, key=lambda found: (-(found.mean("dice") or 0.0), found.seconds)))


def _segmented(
    case: LabelledCase, loaded: LoadedModel, options: RunOptions, progress: ProgressListener, ports: RankPorts
) -> tuple[ArrayStore, float]:
    """Return a store with the mask of a case and its volumes, and the seconds that it took."""
    store = ports.new_store()
    for image in case.images:
        copy_volume(image, options.reading, ports.segment.volumes, store)
    within = replace(ports.segment, volumes=store, scratch=None)
    only = RunOptions(nan_as=options.nan_as)
    done = segment(case.images, loaded, Outputs(_MASK), only, Quiet(progress), ports=within)
    return store, sum(done.seconds.values())


def _compared(
    case: LabelledCase,
    loaded: LoadedModel,
    options: RunOptions,
    progress: ProgressListener,
    ports: RankPorts,
    store: ArrayStore,
) -> Comparison:
    copy_volume(case.labels, reading_of_labels(options.reading), ports.segment.volumes, store)
    labels = loaded.model.card.output.table.labels
    names = [(1, labels[0].name)] if len(labels) == 1 else [(label.value, label.name) for label in labels]
    within = replace(ports.compare, volumes=store)
    return compare(_MASK, case.labels, Quiet(progress), ports=within, as_one=len(labels) == 1, names=names)

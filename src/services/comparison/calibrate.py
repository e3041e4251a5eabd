"""Fit the temperature of a model's probabilities to cases with true labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...domain.calibration import Calibration, CalibrationSample, check_can_be_calibrated, fit_temperature
from ...domain.run import RunOptions
from ...ports.progress import ProgressListener
from ...ports.volume_store import ArrayStore
from ..models.frontier import LabelledCase, reading_of_labels, true_labels
from ..models.loading import LoadedModel
from ..models.tune import Quiet
from ..segmentation.predict import predict
from ..segmentation.segment import SegmentPorts


def calibrate(
    loaded: LoadedModel,
    cases: Sequence[LabelledCase],
    progress: ProgressListener,
    options: RunOptions,
    *,
    ports: SegmentPorts,
    new_store: Callable[[], ArrayStore],
) -> Calibration:
    """Segment all cases, and fit the temperature to their probabilities; the card's own does not count.

    Images are read as ``options`` state, and labels with the spacing and axes that they state.

    Raises:
        UsageError: the network gives no logits, or its labels overlap.
        InputError: a volume cannot be read, does not fit the card, or its labels lie on another grid.
    """
    output = replace(loaded.model.card.output, temperature=1.0)
    check_can_be_calibrated(output)
    card = replace(loaded.model.card, output=output)
    bare = replace(loaded, model=replace(loaded.model, card=card))
    progress.stage("calibrate", len(cases))
    samples = []
    for case in cases:
        found = predict(
            case.images, bare, options, Quiet(progress), probabilities=True, ports=ports, new_store=new_store
        )
        assert found.probabilities is not None  # as asked for
        reading, values = reading_of_labels(options.reading), output.table.values
        truth = true_labels(case.labels, reading, found.labels.grid, values, ports.volumes)
        samples.append(CalibrationSample.of(found.probabilities, truth, output))
        progress.advance(1)
    return fit_temperature(samples)

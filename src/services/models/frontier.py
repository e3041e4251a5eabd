"""Measure time and Dice against truth at each overlap and precision, and what no other beats in both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.cases import numbered_cases
from ...domain.errors import InputError
from ...domain.geometry.grid import Box, Grid
from ...domain.parity import compare_labels
from ...domain.reading import SPATIAL, Reading
from ...domain.run import Outputs, RunOptions
from ...domain.tuning import Tradeoff, mark_beaten
from ...domain.volume import Volume
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.volume_store import ArrayStore, VolumeStore
from ..segmentation.case import volumes_in
from ..segmentation.segment import segment
from .loading import LoadedModel, every_way
from .tune import Quiet, TunePorts

OVERLAPS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625)
_MASK = "mask"
# Names of images and labels in one folder; whatever stands before is the case.
_IMAGE, _LABEL = re.compile(r"(.+)_image"), "{}_label"


@dataclass(frozen=True)
class LabelledCase:
    """A case with its true labels: names of its images, in the network's order, and of the label map."""

    name: str
    images: tuple[str, ...]
    labels: str


def labelled_cases(folders: Sequence[Path], card: ModelCard, volumes: VolumeStore) -> tuple[LabelledCase, ...]:
    """Return the cases of one folder, of ``NAME_image`` and ``NAME_label``, or of a folder of images and one of labels.

    Labels have the name of their case, without the number of a channel.

    Raises:
        InputError: a folder is missing, holds no case, or a case has no labels.
    """
    images, truth = folders[0], folders[-1]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(str(folder), expected="a folder of volumes", got="no folder", do="check the path")
    names, known = volumes.names, {volumes.names.stem(name): name for name in volumes_in(truth, volumes.names)}
    found = []
    for case in numbered_cases(volumes_in(images, names), card.input.source_count, names):
        match = _IMAGE.fullmatch(case.name)
        if len(folders) == 1 and match is None:
            continue
        name = match[1] if match is not None and len(folders) == 1 else case.name
        label = known.get(_LABEL.format(name) if len(folders) == 1 else name)
        if case.problem is not None or label is None:
            got = case.problem.got if case.problem is not None else f"no labels of {name}"
            raise InputError(str(truth), expected="labels of each case", got=got, do="add them, or move the image away")
        found.append(LabelledCase(name, tuple(str(images / file) for file in case.files), str(truth / label)))
    if not found:
        expected, do = "NAME_image and NAME_label", "name them so, or give a folder of images and one of labels"
        raise InputError(str(images), expected=expected, got="none", do=do)
    return tuple(found)


def measure_tradeoffs(
    model: Model,
    cases: Sequence[LabelledCase],
    progress: ProgressListener,
    options: RunOptions,
    *,
    ports: TunePorts,
) -> tuple[Tradeoff, ...]:
    """Segment all cases at each overlap in each runtime and precision; return time and mean Dice of each.

    Images are read as ``options`` state, and labels with the spacing and axes that they state.

    Raises:
        InputError: a volume cannot be read, does not fit the card, or its labels lie on another grid.
    """
    found: list[Tradeoff] = []
    for opened in every_way(model, ports.openers, threads=ports.tunings.machine.threads):
        with closing(opened):
            for overlap in OVERLAPS:
                progress.stage(f"{opened.name} {opened.precision}, overlap {overlap:g}", len(cases))
                at = replace(options, overlap=overlap)
                found.append(_measured(LoadedModel(model, opened), at, cases, progress, ports))
    return mark_beaten(found)


def _measured(
    loaded: LoadedModel,
    options: RunOptions,
    cases: Sequence[LabelledCase],
    progress: ProgressListener,
    ports: TunePorts,
) -> Tradeoff:
    in_memory = RunOptions(overlap=options.overlap, nan_as=options.nan_as)
    seconds, tiles, dice = 0.0, 0, []
    for case in cases:
        store, table = ports.new_store(), loaded.model.card.output.table
        for image in case.images:
            copy_volume(image, options.reading, ports.segment.volumes, store)
        within = replace(ports.segment, volumes=store, scratch=None)
        done = segment(case.images, loaded, Outputs(_MASK), in_memory, Quiet(progress), ports=within)
        reading = reading_of_labels(options.reading)
        truth = true_labels(case.labels, reading, done.grid, table.values, ports.segment.volumes)
        dice.append(compare_labels(truth, store.get(_MASK).array[0], table).dice)
        seconds += ports.seconds_of(done)
        tiles += done.prepared.plan.tile_count
        progress.advance(1)
    means = tuple(float(mean) for mean in np.mean(dice, axis=0))
    return Tradeoff(loaded.runtime.name, loaded.runtime.precision, float(options.overlap or 0.0), tiles, seconds, means)


def copy_volume(image: str, reading: Reading, volumes: VolumeStore, store: ArrayStore) -> None:
    """Copy a volume to memory under its name, so that reading it does not count."""
    with volumes.open(image, reading) as opened:
        values = opened.read(Box.whole(opened.grid.shape))
        store.put(image, Volume(values, opened.grid, opened.channel_names))


def reading_of_labels(reading: Reading) -> Reading:
    """Return how the label map of an image is read: it has neither channels nor points in time."""
    axes = reading.axes and "".join(axis for axis in reading.axes if axis in SPATIAL)
    return Reading(spacing=reading.spacing, unit=reading.unit, axes=axes or None)


def true_labels(
    reference: str, reading: Reading, grid: Grid, values: Sequence[int], volumes: VolumeStore
) -> NDArray[Any]:
    """Read true labels; of a model with one label, all that is not zero has it."""
    with volumes.open(reference, reading) as opened:
        if not opened.grid.same_space(grid):
            do = "give labels that were drawn on the image itself"
            raise InputError(reference, expected="the grid of its image", got=str(opened.grid.shape), do=do)
        labels = opened.read(Box.whole(grid.shape))[0]
    return np.where(labels != 0, values[0], 0) if len(values) == 1 else labels

"""Calibrating a model segments labelled cases as they are stored, whatever temperature its card has already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError, UsageError
from voxport.domain.run import Outputs, RunOptions
from voxport.services.comparison.calibrate import calibrate
from voxport.services.models.frontier import LabelledCase
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.segment import SegmentPorts

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid, noise

SHAPE = (40, 30, 20)
CASES = (LabelledCase("a", ("a image",), "a label"), LabelledCase("b", ("b image",), "b label"))


def model(temperature: float = 1.0) -> LoadedModel:
    card = make_card()
    return load(brighter_than(0.5), replace(card, output=replace(card.output, temperature=temperature)))


def put_cases(bench: Bench, temperature: float) -> None:
    """Two cases whose labels are drawn at a temperature, stored in another orientation."""
    for seed, name in enumerate("ab"):
        image = noise(SHAPE, seed)
        chance = 1 / (1 + np.exp(-8 * (image - 0.5) / temperature))
        truth = (np.random.default_rng(seed + 10).random(SHAPE) < chance).astype(np.uint8)
        bench.put(image, make_grid(SHAPE, codes="LSA"), f"{name} image")
        bench.put(truth * 255, make_grid(SHAPE, codes="LSA"), f"{name} label")


def calibrated(bench: Bench, loaded: LoadedModel) -> float:
    ports = SegmentPorts(bench.volumes, bench.artifacts, PngPictures(), bench.resources)
    found = calibrate(loaded, CASES, bench.progress, RunOptions(), ports=ports, new_store=MemoryStore)
    assert found.cases == 2
    assert found.ece_after < found.ece_before
    return found.temperature


def test_the_temperature_of_labelled_cases_is_found_and_that_of_the_card_does_not_count(bench: Bench) -> None:
    put_cases(bench, 2.0)
    first = calibrated(bench, model())
    assert first == pytest.approx(2.0, rel=0.05)
    assert calibrated(bench, model(5.0)) == first


def test_a_card_with_a_temperature_gives_calibrated_probabilities_and_the_same_mask(bench: Bench) -> None:
    put_cases(bench, 2.0)
    found = []
    for temperature in (1.0, 2.0):
        outputs = Outputs("mask", "probabilities", uncertainty="uncertainty")
        bench.segment(model(temperature), inputs=["a image"], outputs=outputs)
        found.append((bench.array(), bench.array("probabilities")[1], bench.array("uncertainty")))
    (mask, cold, _), (same, warm, levels) = found
    np.testing.assert_array_equal(mask, same)
    image = bench.volumes.get("a image").array[0]
    np.testing.assert_allclose(warm, 1 / (1 + np.exp(-4 * (image.astype(np.float64) - 0.5))), rtol=0, atol=1e-5)
    np.testing.assert_allclose(levels[1], 100 * np.abs(2 * warm - 1), rtol=0, atol=0.6)
    assert np.abs(cold - warm).max() > 0.05


def test_labels_on_another_grid_and_networks_without_logits_are_refused(bench: Bench) -> None:
    put_cases(bench, 1.0)
    bench.put(np.zeros(SHAPE, np.uint8), make_grid(SHAPE, (2, 1, 1), codes="LSA"), "b label")
    with pytest.raises(InputError, match="the grid of its image"):
        calibrated(bench, model())
    loaded = model()
    card = replace(loaded.model.card, output=replace(loaded.model.card.output, activation="none"))
    with pytest.raises(UsageError, match="softmax"):
        calibrated(bench, replace(loaded, model=replace(loaded.model, card=card)))

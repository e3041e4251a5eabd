"""The map of the uncertainty lies on the mask's voxels and is that of its probabilities, however a run is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.cards.model_card import Crop
from voxport.domain.inference.patches import Tiling
from voxport.domain.run import Blending, Outputs, RunOptions
from voxport.domain.volume import Volume
from voxport.services.segmentation.predict import predict
from voxport.services.segmentation.segment import SegmentPorts

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid, noise
from tests.services.segmentation.cropping_cases import card_that_crops

OUTPUTS = Outputs("mask", "probabilities", uncertainty="uncertainty")
SHAPE = (14, 12, 13)


def expected(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """Per cent of entropy and margin of two classes that are decided at a half, and of patches that agree."""
    p = probability.astype(np.float64)
    entropy = -sum(np.where(q > 0, q * np.log2(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p))
    return 100 * np.stack([entropy, np.abs(2 * p - 1), np.zeros(p.shape)])


@pytest.mark.parametrize("spacing", [None, (1.4, 0.7, 1.1)])
@pytest.mark.parametrize("resample", ["logits", "probabilities"])
def test_the_map_is_that_of_the_probabilities_at_every_voxel(
    bench: Bench, spacing: tuple[float, float, float] | None, resample: Any
) -> None:
    bench.put(noise(SHAPE), make_grid(SHAPE, codes="PSL"))
    card = make_card(spacing=spacing, unit="mm" if spacing else None)
    card = replace(card, output=replace(card.output, resample=resample))
    bench.segment(load(brighter_than(0.5), card), outputs=OUTPUTS)
    found = bench.array("uncertainty")
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected(bench.array("probabilities")[1]), rtol=0, atol=0.6)
    assert bench.volumes.get("uncertainty").grid == bench.volumes.get("mask").grid
    assert found[0].max() > 50


@pytest.mark.parametrize("blending", ["gaussian", "constant", "halo"])
def test_the_map_and_the_lists_do_not_depend_on_the_visiting_axis(bench: Bench, blending: Blending) -> None:
    bench.put(noise(SHAPE))
    loaded = load(brighter_than(0.5), make_card(tiling=Tiling((6, 4, 5), overlap=0.25)), radius=1)
    runs = []
    for axis in "xyz":
        done = bench.segment(loaded, axis=axis, blending=blending, outputs=OUTPUTS)
        runs.append((bench.array("uncertainty"), done.uncertainty))
    for levels, lists in runs[1:]:
        np.testing.assert_array_equal(levels, runs[0][0])
        assert lists == runs[0][1]
    assert (runs[0][0][2].max() > 0) == (blending != "halo")  # what is beyond a patch is 0 for its convolutions


@pytest.mark.parametrize("codes", ["LPI", "SAR", "ILA"])
def test_the_stored_orientation_makes_no_difference_in_the_world(bench: Bench, codes: str) -> None:
    ras = Volume(noise((21, 19, 10)), make_grid((21, 19, 10), (1, 1, 3)))
    found = []
    for scan in (ras, ras.reoriented(codes)):
        bench.volumes.put("scan", scan)
        done = bench.segment(load(brighter_than(0.5), make_card()), outputs=OUTPUTS)
        assert done.uncertainty is not None
        places = [(spot.why, *np.round(spot.world, 6)) for spot in done.uncertainty.places]
        found.append((bench.volumes.get("uncertainty").reoriented("RAS").array, places))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_voxels_outside_a_crop_are_certain(bench: Bench) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[3:11, 2:9, 4:8] = 0.25 + noise((8, 7, 4)) / 2
    bench.put(values)
    bench.segment(load(brighter_than(0.5), card_that_crops(Crop("above"))), outputs=OUTPUTS)
    found = bench.array("uncertainty")
    outside = values == 0
    assert set(found[0][outside]) == {0}
    assert set(found[1][outside]) == {100}
    assert set(found[2][outside]) == {0}
    assert found[0][~outside].min() > 0


def test_a_mask_is_the_same_with_its_uncertainty_and_the_statistics_say_where_to_look(bench: Bench) -> None:
    bench.put(noise(SHAPE))
    loaded = load(brighter_than(0.5), make_card())
    bench.segment(loaded, outputs=Outputs("mask", statistics="s.json"))
    plain, mask = json.loads(bench.artifacts.contents["s.json"]), bench.array()
    done = bench.segment(loaded, outputs=Outputs("mask", statistics="s.json", uncertainty="uncertainty"))
    told = json.loads(bench.artifacts.contents["s.json"])
    np.testing.assert_array_equal(bench.array(), mask)
    lists = told.pop("uncertainty")
    assert told == plain
    assert done.uncertainty is not None
    assert lists["places"][0]["why"] == done.uncertainty.places[0].why
    assert lists["places"][0]["world"] == list(bench.volumes.get("mask").grid.world(lists["places"][0]["voxel"]))
    assert [file for file, _ in done.outputs] == ["uncertainty", "mask", "s.json"]


def test_an_array_has_its_uncertainty_in_memory(bench: Bench) -> None:
    scan = Volume(noise(SHAPE), make_grid(SHAPE))
    found = predict(
        [scan],
        load(brighter_than(0.5), make_card()),
        RunOptions(),
        bench.progress,
        probabilities=True,
        uncertainty=True,
        ports=SegmentPorts(bench.volumes, bench.artifacts, PngPictures(), bench.resources),
        new_store=MemoryStore,
    )
    assert found.probabilities is not None
    assert found.uncertainty is not None
    np.testing.assert_allclose(found.uncertainty, expected(found.probabilities[1]), rtol=0, atol=0.6)
    assert found.done.uncertainty is not None

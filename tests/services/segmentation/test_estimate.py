"""A forecast says what a run would take, warns as the run would, and writes nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from voxport.domain.errors import InputError, ModelError
from voxport.domain.inference.patches import Tiling, plan_tiles
from voxport.domain.run import RunOptions
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.estimate import Estimate, estimate

from tests.services.conftest import Bench, brighter_than, calls_of, load, make_card, noise

CARD = make_card(tiling=Tiling((8, 8, 8), overlap=0.5))


def estimate_bench(bench: Bench, loaded: LoadedModel, options: RunOptions | None = None) -> Estimate:
    return estimate(
        ["scan"], loaded, options or RunOptions(), bench.progress, volumes=bench.volumes, resources=bench.resources
    )


def test_the_tiles_are_those_of_the_run(bench: Bench) -> None:
    bench.put(noise((30, 20, 9)))
    loaded = load(brighter_than(0.5), CARD)
    found = estimate_bench(bench, loaded)
    assert found.prepared.plan == bench.segment(loaded).prepared.plan
    assert found.prepared.plan == plan_tiles((30, 20, 9), CARD.tiling, axis=0)


def test_time_is_plausible(bench: Bench) -> None:
    bench.put(noise((30, 20, 9)))
    found = estimate_bench(bench, load(brighter_than(0.5), CARD))
    count = found.prepared.plan.tile_count
    assert 0 < found.seconds_per_tile < 1
    assert found.seconds_per_tile * count <= found.seconds < 60


def test_memory_is_the_peak_so_far_and_the_stitchers(bench: Bench) -> None:
    bench.put(noise((30, 20, 9)))
    bench.resources.peak = 10**9
    found = estimate_bench(bench, load(brighter_than(0.5), CARD))
    assert found.peak_bytes == 10**9 + found.prepared.stitching_bytes


def test_time_is_that_of_all_tiles_and_of_reading_and_writing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second at a look: preparing takes one, and each call, of two tiles, three.

    A call is looked at from outside and, for how long the network works, from inside.
    """
    bench.put(noise((30, 20, 9)))
    seconds = itertools.count()
    monkeypatch.setattr("voxport.services.segmentation.estimate.time.perf_counter", lambda: float(next(seconds)))
    found = estimate_bench(bench, load(brighter_than(0.5), CARD, input_shape=(2, 1, None, None, None)))
    assert found.seconds_per_tile == 1.5
    assert found.seconds == 1.5 * found.prepared.plan.tile_count + 3


def test_only_a_few_tiles_of_noise_are_inferred_and_nothing_is_written(bench: Bench) -> None:
    bench.put(noise((30, 20, 9)))
    loaded = load(brighter_than(0.5), CARD)
    estimate_bench(bench, loaded)
    assert calls_of(loaded) == [(1, 1, 8, 8, 8)] * 3
    assert bench.progress.stages == [("prepare", 0), ("calibrate", 3)]
    assert bench.progress.tiles == 3
    assert bench.artifacts.contents == {}
    with pytest.raises(InputError):
        bench.volumes.get("mask")


def test_noise_is_handed_over_as_the_network_wants_it(bench: Bench) -> None:
    """Two tiles at once, in ZYX, at the one size that it takes."""
    bench.put(noise((2, 30, 20, 9)))
    loaded = load(lambda batch: batch, make_card(2, axes="ZYX"), input_shape=(2, 2, 4, 8, 16))
    found = estimate_bench(bench, loaded)
    assert calls_of(loaded) == [(2, 2, 4, 8, 16)] * 3
    assert found.prepared.plan.tile == (16, 8, 4)


def test_it_warns_as_the_run_does(bench: Bench) -> None:
    bench.put(np.zeros((30, 20, 9), np.uint8))
    loaded = load(brighter_than(0.5), CARD, warning="not certified")
    found = estimate_bench(bench, loaded)
    assert found.warnings == bench.segment(loaded).warnings
    assert found.warnings[0] == "not certified"
    assert "has the value 0 everywhere" in found.warnings[1]


def test_the_estimate_refuses_what_the_run_refuses(bench: Bench) -> None:
    bench.put(np.full((30, 20, 9), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        estimate_bench(bench, load(brighter_than(0.5), CARD))
    assert estimate_bench(bench, load(brighter_than(0.5), CARD), RunOptions(nan_as=0.0)).seconds > 0
    with pytest.raises(ModelError, match="network output"):
        estimate_bench(bench, load(lambda batch: batch, CARD), RunOptions(nan_as=0.0))

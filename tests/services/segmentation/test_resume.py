"""A run that goes on from another's finished planes gives the same bytes; what does not belong to it is not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from voxport.adapters.pictures.png import PngPictures
from voxport.domain.cards.model_card import Crop, ResamplingRule
from voxport.domain.errors import CancelledError
from voxport.domain.geometry.grid import Box
from voxport.domain.inference.patches import Tiling
from voxport.domain.inference.sliding_window import slab_bytes
from voxport.domain.labels.postprocessing import FillHoles, KeepLargest
from voxport.domain.run import AXES, Blending, Outputs, RunOptions
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.resume import Checkpoint
from voxport.services.segmentation.segment import Segmentation, SegmentPorts, segment
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import Bench, brighter_than, calls_of, load, make_card, make_grid, noise

SHAPE = (14, 12, 13)
OUTPUTS = Outputs("mask", "probabilities", "s.json", "p.png", uncertainty="uncertainty")


def model(blending: Blending = "gaussian", **card: Any) -> LoadedModel:
    tiling = Tiling((4, 4, 4), overlap=0.25, blending=blending)
    return load(brighter_than(0.5), make_card(tiling=tiling, **card), radius=1)


def put(bench: Bench, **grid: Any) -> None:
    bench.put(noise(SHAPE), make_grid(SHAPE, **grid))


class Counting(RecordingProgress):
    """Counts the tiles that it is told of."""

    told = 0

    def advance(self, tiles: int) -> None:
        """Count, then cancel perhaps."""
        self.told += tiles
        super().advance(tiles)


def run(
    bench: Bench,
    loaded: LoadedModel,
    blobs: MemoryBlobs | None,
    *,
    cancel_after: int | None = None,
    outputs: Outputs = OUTPUTS,
    every_seconds: float = 0.0,
    **options: Any,
) -> tuple[Segmentation, int]:
    """A run, and the tiles that it told of."""
    progress = Counting(cancel_after)
    ports = SegmentPorts(bench.volumes, bench.artifacts, PngPictures(), bench.resources)
    checkpoint = None if blobs is None else Checkpoint(blobs, "case/planes", version="1", every_seconds=every_seconds)
    done = segment(["scan"], loaded, outputs, RunOptions(**options), progress, ports=ports, checkpoint=checkpoint)
    return done, progress.told


def stopped(bench: Bench, loaded: LoadedModel, blobs: MemoryBlobs, tiles: int, **options: Any) -> None:
    with pytest.raises(CancelledError):
        run(bench, loaded, blobs, cancel_after=tiles, **options)


def assert_same(again: Segmentation, whole: Segmentation) -> None:
    assert again.outputs == whole.outputs  # names and sha256
    assert again.warnings == whole.warnings
    assert again.prepared.plan == whole.prepared.plan


@pytest.mark.requirement("R-SAME")
@pytest.mark.parametrize(("codes", "axis"), [("RAS", "z"), ("SLP", "x"), ("AIR", "y")])
@pytest.mark.parametrize("spacing", [None, (1.4, 1.4, 1.4), (0.8, 1.0, 0.8)])
@pytest.mark.parametrize("blending", ["gaussian", "constant", "halo"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    bench: Bench, blending: Blending, spacing: tuple[float, float, float] | None, codes: str, axis: str
) -> None:
    put(bench, codes=codes)
    loaded = model(blending, spacing=spacing, unit="mm" if spacing else None)
    whole, tiles = run(bench, loaded, None, axis=axis)
    for at in (tiles // 2, tiles - 1):
        blobs = MemoryBlobs()
        stopped(bench, loaded, blobs, at, axis=axis)
        before = len(calls_of(loaded))
        again, told = run(bench, loaded, blobs, axis=axis)
        assert_same(again, whole)
        assert told == tiles
    if spacing is None:  # resampled, it has so few rows of tiles that all of them reach the planes that are left
        assert len(calls_of(loaded)) - before < tiles


@pytest.mark.parametrize("codes", ["RAS", "SLP"])
@pytest.mark.parametrize("spacing", [None, (1.4, 1.4, 1.4)])
def test_a_run_of_a_card_that_crops_is_resumed(
    bench: Bench, spacing: tuple[float, float, float] | None, codes: str
) -> None:
    values = noise(SHAPE)
    values[:2], values[:, -1:] = 0, 0
    bench.put(values, make_grid(SHAPE, codes=codes))
    loaded = model(spacing=spacing, unit="mm" if spacing else None)
    card = replace(loaded.model.card, input=replace(loaded.model.card.input, crop=Crop("nonzero")))
    loaded = replace(loaded, model=replace(loaded.model, card=card))
    whole, tiles = run(bench, loaded, None)
    assert whole.prepared.crop == Box((2, 0, 0), (14, 11, 13))
    blobs = MemoryBlobs()
    stopped(bench, loaded, blobs, tiles - 1)
    before = len(calls_of(loaded))
    assert_same(run(bench, loaded, blobs)[0], whole)
    assert len(calls_of(loaded)) - before < tiles or spacing is not None


def test_postprocessing_of_a_resumed_run_is_of_the_whole_mask(bench: Bench) -> None:
    values = np.ones(SHAPE, np.float32)
    values[3:6] = 0  # between the smaller component, which comes first, and the larger one
    values[8:12, 4:8, 4:9] = 0  # a hole
    bench.put(values, make_grid(SHAPE))
    loaded = load(brighter_than(0.5), make_card(tiling=Tiling((4, 4, 4), overlap=0.25)))
    steps = (KeepLargest((1,)), FillHoles((1,)))
    card = replace(loaded.model.card, output=replace(loaded.model.card.output, postprocessing=steps))
    loaded = replace(loaded, model=replace(loaded.model, card=card))
    whole, tiles = run(bench, loaded, None)
    assert all(change.voxels for change in whole.postprocessing)
    blobs = MemoryBlobs()
    stopped(bench, loaded, blobs, tiles - 1)
    again, _ = run(bench, loaded, blobs)
    assert_same(again, whole)
    assert again.postprocessing == whole.postprocessing


@pytest.mark.parametrize("resample", ["logits", "probabilities"])
@pytest.mark.parametrize("axis", AXES)
def test_a_run_that_resamples_by_cubic_splines_is_resumed_to_the_last_bit(
    bench: Bench, resample: Literal["logits", "probabilities"], axis: str
) -> None:
    x, y, z = (80 if axis == along else 12 for along in AXES)
    bench.put(noise((x, y, z)), make_grid((x, y, z)))
    loaded = model("halo", spacing=(0.8, 1.0, 1.3), unit="mm")
    card = loaded.model.card
    rule = ResamplingRule(3, "auto", "before_intensity", "first")
    card = replace(
        card,
        input=replace(card.input, resampling=rule),
        output=replace(card.output, order=3, resample=resample),
        tiling=replace(card.tiling, patch=(8, 8, 8)),
    )
    loaded = replace(loaded, model=replace(loaded.model, card=card))
    whole, tiles = run(bench, loaded, None, axis=axis)
    blobs = MemoryBlobs()
    stopped(bench, loaded, blobs, tiles - 1, axis=axis)
    before = len(calls_of(loaded))
    again, _ = run(bench, loaded, blobs, axis=axis)
    assert_same(again, whole)
    assert len(calls_of(loaded)) - before < tiles


def test_it_may_be_stopped_again_and_again(bench: Bench) -> None:
    put(bench)
    loaded = model()
    whole, tiles = run(bench, loaded, None)
    blobs = MemoryBlobs()
    for at in range(10, tiles, 15):
        stopped(bench, loaded, blobs, at)
    again, _ = run(bench, loaded, blobs)
    assert_same(again, whole)


def test_contested_voxels_are_counted_over_all_parts(bench: Bench) -> None:
    put(bench)
    card = make_card(labels=(1, 2), activation="sigmoid", tiling=Tiling((6, 6, 6)))
    loaded = load(lambda batch: np.concatenate([batch, batch], axis=1) - np.float32(0.5), card)
    whole, tiles = run(bench, loaded, None)
    assert "several labels" in whole.warnings[-1]
    blobs = MemoryBlobs()
    stopped(bench, loaded, blobs, tiles // 2)
    assert_same(run(bench, loaded, blobs)[0], whole)


def _other_input(bench: Bench) -> dict[str, Any]:
    bench.put(noise(SHAPE, seed=1), make_grid(SHAPE))
    return {}


@pytest.mark.parametrize(
    "change",
    [
        _other_input,
        lambda bench: {"overlap": 0.5},  # noqa: ARG005
        lambda bench: {"blending": "constant"},  # noqa: ARG005
        lambda bench: {"outputs": Outputs("mask")},  # noqa: ARG005
    ],
)
def test_planes_of_another_run_are_dropped(bench: Bench, change: Callable[[Bench], dict[str, Any]]) -> None:
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    stopped(bench, loaded, blobs, 20)
    options = change(bench)
    whole, tiles = run(bench, loaded, None, **options)
    before = len(calls_of(loaded))
    again, _ = run(bench, loaded, blobs, every_seconds=1e9, **options)
    assert_same(again, whole)
    assert len(calls_of(loaded)) - before in (tiles, tiles + 1)  # and perhaps the probe
    assert blobs.names("case") == ()


def test_planes_from_a_machine_with_other_logits_are_dropped(bench: Bench) -> None:
    put(bench)
    blobs = MemoryBlobs()
    stopped(bench, model(), blobs, 20)
    other = load(brighter_than(0.5000001), make_card(tiling=Tiling((4, 4, 4), overlap=0.25)), radius=1)
    whole, _ = run(bench, other, None)
    assert_same(run(bench, other, blobs)[0], whole)


def test_a_piece_from_another_run_in_the_same_folder_is_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from one that seemed dead, and wrote on while the next one had begun anew."""
    monkeypatch.setattr("voxport.services.segmentation.resume._PIECE_VALUES", 1)
    put(bench)
    loaded, blobs, theirs = model(), MemoryBlobs(), MemoryBlobs()
    other = load(brighter_than(0.3), make_card(tiling=Tiling((4, 4, 4), overlap=0.25)), radius=1)
    whole, _ = run(bench, loaded, None)
    stopped(bench, loaded, blobs, 40)
    stopped(bench, other, theirs, 60)
    left = {name: content for name, content in theirs.contents.items() if name not in blobs.contents}
    assert left
    blobs.contents |= left
    assert_same(run(bench, loaded, blobs)[0], whole)


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 nor is this"])
@pytest.mark.parametrize("which", [0, -1])
def test_damaged_pieces_are_dropped(bench: Bench, damage: bytes, which: int) -> None:
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    whole, _ = run(bench, loaded, None)
    stopped(bench, loaded, blobs, 40)
    pieces = [name for name in blobs.names("case/planes") if name.endswith(".npz")]
    blobs.contents[pieces[which]] = damage
    assert_same(run(bench, loaded, blobs)[0], whole)


def test_pieces_after_a_gap_are_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.services.segmentation.resume._PIECE_VALUES", 1)
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    whole, _ = run(bench, loaded, None)
    stopped(bench, loaded, blobs, 40)
    pieces = [name for name in blobs.names("case/planes") if name.endswith(".npz")]
    assert len(pieces) > 3  # of one plane each
    del blobs.contents[pieces[-1]]
    assert_same(run(bench, loaded, blobs)[0], whole)


def test_a_run_continues_if_planes_cannot_be_stored(bench: Bench) -> None:
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    whole, _ = run(bench, loaded, None)
    blobs.full = True
    assert_same(run(bench, loaded, blobs)[0], whole)
    assert blobs.contents == {}


def test_the_blending_of_the_first_part_holds_however_much_memory_is_free(bench: Bench) -> None:
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    plan = run(bench, loaded, None, outputs=Outputs("mask"))[0].prepared.plan
    bench.resources.available = 2 * slab_bytes(plan, 1, 2) - 10
    whole, tiles = run(bench, loaded, None, outputs=Outputs("mask"))
    assert whole.prepared.plan.blending == "halo"
    stopped(bench, loaded, blobs, tiles // 2, outputs=Outputs("mask"))
    bench.resources.available = 2**40
    again, _ = run(bench, loaded, blobs, outputs=Outputs("mask"))
    assert again.prepared.plan == whole.prepared.plan
    assert again.outputs == whole.outputs


def test_a_short_run_stores_nothing_and_infers_no_probe(bench: Bench) -> None:
    put(bench)
    loaded, blobs = model(), MemoryBlobs()
    _, tiles = run(bench, loaded, blobs, every_seconds=1e9)
    assert blobs.contents == {}
    assert len(calls_of(loaded)) == tiles


def test_stored_planes_name_their_dependencies(bench: Bench) -> None:
    put(bench)
    blobs = MemoryBlobs()
    stopped(bench, model(), blobs, 20)
    head = json.loads(blobs.contents["case/planes/head.json"])
    assert (head["schema"], head["version"], head["blending"]) == ("voxport/slabs/1", "1", "gaussian")

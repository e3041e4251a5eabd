"""Segmenting a case puts the right mask on the case's own voxels, and everything beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import CancelledError, InputError, ModelError, OutputError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.inference.patches import Padding, Tiling
from voxport.domain.intensity import ShiftScale
from voxport.domain.labels.label_map import Activation
from voxport.domain.run import Blending, Outputs, RunOptions
from voxport.domain.volume import Volume
from voxport.ports.progress import ProgressListener
from voxport.services.segmentation.segment import SegmentPorts, segment
from voxport.testing.affine import Floats
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.fakes import box_mean
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid, noise

EVERYTHING = Outputs("mask", "probabilities", "s.json", "p.png", "r.json", uncertainty="uncertainty")


def four_classes(batch: Floats) -> Floats:
    """The class whose centre is nearest to the value: all four occur, also where values are averaged."""
    return np.concatenate([-np.abs(8 * (batch - 0.5) - centre) for centre in (-1.0, -0.3, 0.3, 1.0)], axis=1)


# What the mask is


@pytest.mark.parametrize("blending", ["gaussian", "constant", "halo"])
@pytest.mark.parametrize("shape", [(12, 10, 9), (8, 8, 8), (3, 20, 1), (1, 1, 1)])
def test_a_threshold_in_the_network_is_a_threshold_in_the_mask(
    bench: Bench, blending: Blending, shape: tuple[int, int, int]
) -> None:
    values = bench.put(noise(shape)).array[0]
    bench.segment(load(brighter_than(0.6), make_card()), blending=blending)
    np.testing.assert_array_equal(bench.array(), values > np.float32(0.6))
    assert bench.array().dtype == np.uint8


@pytest.mark.requirement("R-GRID")
def test_the_mask_lies_on_the_first_volumes_grid(bench: Bench) -> None:
    scan = bench.put(noise((6, 5, 4)), make_grid((6, 5, 4), (0.5, 2.0, 1.0), "um", "PIR"))
    done = bench.segment(load(brighter_than(0.5), make_card()))
    assert bench.volumes.get("mask").grid == scan.grid == done.grid


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIR", "ILA"])
@pytest.mark.parametrize("spacing", [None, (1.7, 1.0, 0.8)])
def test_the_stored_orientation_makes_no_difference_in_the_world(
    bench: Bench, codes: str, spacing: tuple[float, float, float] | None
) -> None:
    """The network sees context and is lopsided in x."""
    ras = Volume(noise((11, 9, 10)), make_grid((11, 9, 10)))

    def lopsided(batch: Floats) -> Floats:
        return brighter_than(0.5)(batch + 0.1 * np.roll(batch, 1, axis=2))

    card = make_card(spacing=spacing, unit=None if spacing is None else "mm")
    masks = []
    for name, scan in (("ras", ras), ("turned", ras.reoriented(codes))):
        bench.volumes.put(name, scan)
        bench.segment(load(lopsided, card, radius=1), inputs=[name])
        masks.append(bench.volumes.get("mask").reoriented("RAS").array)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 0.1 < masks[0].mean() < 0.9


def test_a_card_without_an_orientation_keeps_the_stored_order(bench: Bench) -> None:
    def first_half(batch: Floats) -> Floats:
        ramp = np.broadcast_to(np.linspace(1, -1, batch.shape[2])[:, None, None], batch.shape)
        return np.concatenate([ramp, -ramp], axis=1)

    bench.put(noise((8, 6, 4)), make_grid((8, 6, 4), codes="LPS"))
    for orientation, upper_half in ((None, True), ("RAS", False)):
        bench.segment(load(first_half, make_card(orientation=orientation, tiling=Tiling((None, None, None)))))
        assert bench.array()[4:].all() == upper_half
        assert bench.array().any(axis=(1, 2)).tolist() == [not upper_half] * 4 + [upper_half] * 4


@pytest.mark.parametrize("spacing", [None, (2.1, 0.7, 1.3)])
@pytest.mark.parametrize("blending", ["gaussian", "constant", "halo"])
def test_the_visiting_axis_makes_no_difference(
    bench: Bench, spacing: tuple[float, float, float] | None, blending: Blending
) -> None:
    """To the last bit of the scores, interpolated or not."""
    bench.put(noise((13, 11, 9)))
    unit = None if spacing is None else "mm"
    card = make_card(labels=[1, 2, 3], activation="none", spacing=spacing, unit=unit, tiling=Tiling((6, 4, 5)))
    loaded = load(four_classes, card, radius=1)
    found = []
    for axis in "xyz":
        bench.segment(loaded, axis=axis, blending=blending, outputs=Outputs("mask", "scores"))
        found.append((bench.array(), bench.array("scores")))
    for mask, logits in found[1:]:
        np.testing.assert_array_equal(mask, found[0][0])
        np.testing.assert_array_equal(logits, found[0][1])
    assert len(np.unique(found[0][0])) >= 3


@pytest.mark.parametrize("padding", [Padding(), Padding("edge")])
def test_tiles_with_enough_context_equal_the_whole_volume_to_the_last_bit(bench: Bench, padding: Padding) -> None:
    """The network looks 2 voxels around; tiles of 12 that overlap by half keep 3 voxels around each core."""
    values = bench.put(noise((30, 17, 24))).array
    tiling = Tiling((12, 12, 12), overlap=0.5, padding=padding)
    card = make_card(labels=[1, 2, 3], activation="none", tiling=tiling)
    bench.segment(load(four_classes, card, radius=2), blending="halo", outputs=Outputs("mask", "scores"))
    logits = four_classes(box_mean(values[np.newaxis], 2))[0]
    np.testing.assert_array_equal(bench.array(), logits.argmax(axis=0))
    np.testing.assert_array_equal(bench.array("scores"), logits)


def test_tiles_without_enough_context_differ_from_the_whole(bench: Bench) -> None:
    """The test above would notice."""
    values = bench.put(noise((30, 17, 24))).array
    card = make_card(labels=[1, 2, 3], tiling=Tiling((6, 6, 6), overlap=0.0))
    bench.segment(load(four_classes, card, radius=2), blending="halo")
    assert (bench.array() != four_classes(box_mean(values[np.newaxis], 2))[0].argmax(axis=0)).any()


@pytest.mark.parametrize("blending", ["halo", "gaussian"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_tiles_equal_the_whole_when_the_volume_is_resampled(bench: Bench, blending: Blending, axis: str) -> None:
    """Halo blocks become planes before they are interpolated back; pointwise scores are the same for any tiling."""
    bench.put(noise((12, 11, 10)))
    probabilities = []
    for patch in ((None, None, None), (4, 5, 3)):
        card = make_card(spacing=(0.8, 1.9, 1.2), unit="mm", tiling=Tiling(patch))
        bench.segment(load(brighter_than(0.5), card), blending=blending, axis=axis, outputs=Outputs("mask", "p"))
        probabilities.append(bench.array("p"))
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-6)


def test_a_resampled_volume_is_inferred_at_the_models_spacing_and_the_mask_is_on_its_own_grid(bench: Bench) -> None:
    values = np.zeros((16, 12, 8), np.float32)
    values[4:12] = 1
    scan = bench.put(values, make_grid((16, 12, 8), (1.0, 1.0, 2.0)))
    card = make_card(spacing=(2.0, 2.0, 2.0), unit="mm", tiling=Tiling((None, None, None)))
    done = bench.segment(load(brighter_than(0.5), card))
    assert done.prepared.space.grid.shape == (8, 6, 8)
    assert done.prepared.space.resamples
    assert bench.volumes.get("mask").grid == scan.grid
    np.testing.assert_array_equal(bench.array(), values)


def test_many_planes_are_written_in_a_few_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thin pieces would cost a seek each; 19 planes in pieces of 8 at most are three."""
    boxes: list[Box] = []
    sink_type = type(bench.volumes.create("x", make_grid(), np.dtype(np.uint8)))
    write = sink_type.write

    def remember(sink: Any, box: Box, values: NDArray[Any]) -> None:
        boxes.append(box)
        write(sink, box, values)

    monkeypatch.setattr(sink_type, "write", remember)
    bench.put(noise((19, 6, 5)))
    bench.segment(load(brighter_than(0.5), make_card(tiling=Tiling((4, 4, 4)))), axis="x")
    assert [(box.start[0], box.stop[0]) for box in boxes] == [(0, 8), (8, 15), (15, 19)]


# Channels, intensity, activations


def test_channels_come_from_several_files_in_the_networks_order(bench: Bench) -> None:
    """Label 1 where the second file is brighter than the first, whatever the sources' order in the card."""
    first, second = noise((9, 8, 7), 1), noise((9, 8, 7), 2)
    bench.put(first, name="first")
    bench.put(second, name="second")
    bench.segment(load(lambda batch: batch[:, [1, 0]], make_card([1, 0])), inputs=["first", "second"])
    np.testing.assert_array_equal(bench.array(), second > first)
    bench.segment(load(lambda batch: batch[:, [1, 0]], make_card([1, 0])), inputs=["second", "first"])
    np.testing.assert_array_equal(bench.array(), first > second)


def test_a_4d_file_is_as_good_as_several_files(bench: Bench) -> None:
    channels = noise((2, 9, 8, 7))
    bench.put(channels)
    bench.segment(load(lambda batch: batch, make_card(2)))
    np.testing.assert_array_equal(bench.array(), channels[1] > channels[0])


def test_one_source_can_feed_several_channels(bench: Bench) -> None:
    values = bench.put(noise((9, 8, 7))).array[0]
    bench.segment(load(lambda batch: batch * np.array([[[[0.3]]], [[[1 - 0.3]]]], np.float32), make_card([0, 0])))
    np.testing.assert_array_equal(bench.array(), values * np.float32(0.7) > values * np.float32(0.3))


def test_intensity_steps_are_applied_before_inference(bench: Bench) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    bench.put(values)
    bench.segment(load(brighter_than(0.5), make_card(intensity=[ShiftScale(-10, 0.02)])))
    np.testing.assert_array_equal(bench.array(), (values.astype(np.float32) - 10) * np.float32(0.02) > 0.5)


def test_a_zyx_network_gives_the_same_mask(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    masks = []
    for axes in ("XYZ", "ZYX"):
        card = make_card(labels=[1, 2, 3], axes="ZYX" if axes == "ZYX" else "XYZ")
        bench.segment(load(four_classes, card, radius=1))
        masks.append(bench.array())
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_network_with_a_fixed_batch_gives_the_same_mask(bench: Bench) -> None:
    bench.put(noise((20, 10, 9)))
    masks = []
    for batch in (None, 4):
        bench.segment(load(four_classes, make_card(labels=[1, 2, 3]), input_shape=(batch, 1, 8, 8, 8), radius=1))
        masks.append(bench.array())
    np.testing.assert_array_equal(masks[0], masks[1])


def test_sigmoid_labels_have_their_own_values_and_the_last_one_wins(bench: Bench) -> None:
    values = bench.put(noise((9, 8, 7))).array[0]
    card = make_card(labels=[300, 7], activation="sigmoid")

    def nested(batch: Floats) -> Floats:
        return np.concatenate([batch - np.float32(0.3), batch - np.float32(0.8)], axis=1)

    done = bench.segment(load(nested, card), outputs=Outputs("mask", "probabilities"))
    expected = np.where(values >= np.float32(0.8), 7, np.where(values >= np.float32(0.3), 300, 0))
    np.testing.assert_array_equal(bench.array(), expected)
    assert bench.array().dtype == np.uint16
    contested = int((values >= np.float32(0.8)).sum())
    assert any(line.startswith(f"{contested} voxels reach the threshold for several labels") for line in done.warnings)
    assert bench.array("probabilities").shape == (2, 9, 8, 7)


def test_labels_that_exclude_each_other_give_no_warning(bench: Bench) -> None:
    bench.put(noise((9, 8, 7)))
    card = make_card(labels=[1, 2], activation="sigmoid")
    done = bench.segment(load(lambda batch: np.concatenate([batch - 0.5, 0.4 - batch], axis=1), card))
    assert done.warnings == ()


@pytest.mark.parametrize(("activation", "channels"), [("softmax", 2), ("none", 2), ("sigmoid", 1)])
def test_probabilities_are_the_activated_logits(bench: Bench, activation: Activation, channels: int) -> None:
    values = bench.put(noise((9, 8, 7))).array
    logits = np.concatenate([values, 1 - values])[:channels]
    card = make_card(activation=activation)
    bench.segment(
        load(lambda batch: np.concatenate([batch, 1 - batch], axis=1)[:, :channels], card),
        outputs=Outputs("mask", "probabilities"),
        blending="halo",
    )
    expected = {
        "softmax": np.exp(logits) / np.exp(logits).sum(axis=0),
        "none": logits,
        "sigmoid": 1 / (1 + np.exp(-logits)),
    }[activation]
    np.testing.assert_allclose(bench.volumes.get("probabilities").array, expected, atol=1e-6)
    assert bench.array("probabilities").dtype == np.float32


# What else comes out


def test_everything_that_was_asked_for_appears_with_its_hash(bench: Bench) -> None:
    values = bench.put(noise((12, 10, 9)).astype(np.float64)).array[0]
    done = bench.segment(load(brighter_than(0.5), make_card()), outputs=EVERYTHING)
    hashes = dict(done.outputs)
    assert set(hashes) == {"mask", "probabilities", "uncertainty", "s.json", "p.png"}
    for name in ("mask", "probabilities"):
        assert hashes[name] == bench.volumes.open(name).sha256()
    for name in ("s.json", "p.png"):
        assert hashes[name] == hashlib.sha256(bench.artifacts.contents[name]).hexdigest()
    assert done.inputs == (("scan", bench.volumes.open("scan").sha256()),)
    label = json.loads(bench.artifacts.contents["s.json"])["labels"][0]
    inside = values.astype(np.float32) > np.float32(0.5)
    assert label["voxels"] == inside.sum() == done.statistics[0].voxels
    assert label["channels"][0]["mean"] == pytest.approx(values[inside].mean())
    assert bench.artifacts.contents["p.png"].startswith(b"\x89PNG")


def test_statistics_of_every_channel_are_measured_on_the_stored_values(bench: Bench) -> None:
    channels = np.random.default_rng(0).integers(0, 4096, (2, 9, 8, 7), np.uint16)
    bench.put(channels, make_grid((9, 8, 7), codes="PSL"))
    card = make_card(2, intensity=[ShiftScale(0, 1 / 4096)])
    done = bench.segment(load(lambda batch: batch, card))
    inside = channels[1] > channels[0]
    for found, stored in zip(done.statistics[0].channels, channels, strict=True):
        assert found.mean == pytest.approx(stored[inside].mean())
        assert found.max == stored[inside].max()


@pytest.mark.requirement("R-FINITE")
def test_values_that_are_not_finite_are_replaced_everywhere(bench: Bench) -> None:
    """In the network's input, and in what is measured of it."""
    values = noise((9, 8, 7))
    values[:3], values[3], values[4, 0, 0] = np.nan, np.inf, -np.inf
    bench.put(values)
    done = bench.segment(load(brighter_than(0.5), make_card()), nan_as=0.75, outputs=EVERYTHING)
    replaced = np.where(np.isfinite(values), values, np.float32(0.75))
    np.testing.assert_array_equal(bench.array(), replaced > 0.5)
    (channel,) = done.statistics[0].channels
    assert channel.mean == pytest.approx(replaced[replaced > 0.5].mean())
    assert channel.std == pytest.approx(replaced[replaced > 0.5].std(), rel=1e-4)
    assert channel.max == replaced.max()
    assert b"NaN" not in bench.artifacts.contents["s.json"]


def test_an_empty_mask_has_empty_statistics_and_a_preview_all_the_same(bench: Bench) -> None:
    bench.put(noise((9, 8, 7)))
    done = bench.segment(load(brighter_than(2.0), make_card()), outputs=EVERYTHING)
    assert not bench.array().any()
    assert done.statistics[0].voxels == 0
    assert bench.artifacts.contents["p.png"]


def test_stages_and_tiles_are_reported_and_timed(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    loaded = load(brighter_than(0.5), make_card(tiling=Tiling((8, 8, 8), overlap=0.0)))
    done = bench.segment(loaded)
    count = done.prepared.plan.tile_count
    assert count == 8
    assert bench.progress.stages == [("read", 0), ("prepare", 0), ("score", count), ("measure", 0), ("write", 0)]
    assert list(done.seconds) == ["read", "prepare", "score", "measure", "write"]
    assert all(seconds >= 0 for seconds in done.seconds.values())


@pytest.mark.parametrize("spacing", [None, (3.0, 3.0, 3.0)])
def test_every_tile_of_the_plan_is_reported(bench: Bench, spacing: tuple[float, float, float] | None) -> None:
    class Adding(RecordingProgress):
        total = 0

        def advance(self, tiles: int) -> None:
            self.total += tiles

    bench.progress = progress = Adding()
    bench.put(noise((20, 10, 9)))
    card = make_card(spacing=spacing, unit=None if spacing is None else "mm", tiling=Tiling((4, 4, 4)))
    done = bench.segment(load(brighter_than(0.5), card))
    assert progress.total == done.prepared.plan.tile_count > 1


def test_warnings_of_the_model_of_the_case_and_of_the_run_are_collected_in_this_order(bench: Bench) -> None:
    bench.put(np.full((9, 8, 7), 3.0, np.float32))
    card = make_card(labels=[1, 2], activation="sigmoid")
    loaded = load(lambda batch: np.concatenate([batch, batch], axis=1), card, warning="not certified")
    first, second, third = bench.segment(loaded).warnings
    assert first == "not certified"
    assert "has the value 3 everywhere" in second
    assert third.startswith("504 voxels reach the threshold")


# What happens when it goes wrong


def run_into(
    error: type[BaseException],
    bench: Bench,
    outputs: Outputs = EVERYTHING,
    infer: Any = None,
    volumes: MemoryStore | None = None,
    artifacts: MemoryArtifacts | None = None,
    progress: ProgressListener | None = None,
) -> str:
    """Segment noise, with some ports that fail; the error's text."""
    ports = SegmentPorts(volumes or bench.volumes, artifacts or bench.artifacts, PngPictures(), bench.resources)
    loaded = load(infer or brighter_than(0.5), make_card())
    with pytest.raises(error) as caught:
        segment(["scan"], loaded, outputs, RunOptions(), progress or bench.progress, ports=ports)
    return str(caught.value)


def kept(bench: Bench, store: MemoryStore | None = None) -> list[str]:
    """Every output that is stored."""
    names = []
    for name in ("mask", "probabilities"):
        try:
            (store or bench.volumes).get(name)
        except InputError:
            continue
        names.append(name)
    return [*names, *bench.artifacts.contents]


@pytest.mark.requirement("R-WHOLE")
@pytest.mark.parametrize("tiles", [1, 4])
def test_a_cancelled_run_leaves_nothing(bench: Bench, tiles: int) -> None:
    bench.put(noise((12, 10, 9)))
    run_into(CancelledError, bench, progress=RecordingProgress(cancel_after=tiles))
    assert kept(bench) == []


def test_a_cancelled_run_leaves_older_results_as_they_were(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    older = Volume(np.full((12, 10, 9), 9, np.uint8), make_grid())
    bench.volumes.put("mask", older)
    bench.artifacts.write("s.json", b"older")
    run_into(CancelledError, bench, progress=RecordingProgress(cancel_after=3))
    assert bench.volumes.get("mask") is older
    assert bench.artifacts.contents == {"s.json": b"older"}


def test_an_interrupted_run_leaves_nothing(bench: Bench) -> None:
    class Interrupting(RecordingProgress):
        def stage(self, name: str, tiles: int = 0) -> None:
            super().stage(name, tiles)
            if name == "measure":
                raise KeyboardInterrupt

    bench.put(noise((12, 10, 9)))
    run_into(KeyboardInterrupt, bench, progress=Interrupting())
    assert kept(bench) == []


@pytest.mark.requirement("R-FINITE")
@pytest.mark.parametrize(
    "infer",
    [
        lambda batch: batch,
        lambda batch: np.full_like(np.concatenate([batch, batch], axis=1), np.nan),
        lambda batch: np.concatenate([batch, batch], axis=1)[..., :-1],
    ],
    ids=["channels", "nan", "shape"],
)
def test_invalid_logits_are_a_model_error_and_leave_nothing(bench: Bench, infer: Any) -> None:
    bench.put(noise((12, 10, 9)))
    assert "network output: expected" in run_into(ModelError, bench, infer=infer)
    assert kept(bench) == []


def test_an_error_late_in_the_network_leaves_nothing(bench: Bench) -> None:
    calls: list[int] = []

    def fails_late(batch: Floats) -> Floats:
        calls.append(1)
        if len(calls) == 8:
            raise ModelError("network", expected="memory", got="none", do="buy some")
        return brighter_than(0.5)(batch)

    bench.put(noise((12, 10, 9)))
    run_into(ModelError, bench, infer=fails_late)
    assert len(calls) == 8
    assert kept(bench) == []


@pytest.mark.parametrize("refused", ["s.json", "p.png", "r.json"])
def test_an_output_that_cannot_be_written_fails_before_inference(bench: Bench, refused: str) -> None:
    def never(batch: Floats) -> Floats:
        raise AssertionError(f"scored {batch.shape}")

    bench.put(noise((12, 10, 9)))
    run_into(OutputError, bench, artifacts=MemoryArtifacts([refused]), infer=never)
    assert kept(bench) == []


class FailingLate(MemoryArtifacts):
    """Takes everything until it is written: a disk that fills up during the run."""

    def write(self, reference: str, content: bytes) -> None:
        raise OutputError(reference, expected="room", got=f"{len(content)} bytes too many", do="make room")


@pytest.mark.parametrize("outputs", [Outputs("mask", None, "s.json"), Outputs("mask", None, None, "p.png")])
def test_a_small_file_that_fails_at_the_very_end_is_an_output_error_and_the_mask_is_whole(
    bench: Bench, outputs: Outputs
) -> None:
    values = bench.put(noise((12, 10, 9))).array[0]
    assert "bytes too many" in run_into(OutputError, bench, outputs, artifacts=FailingLate())
    np.testing.assert_array_equal(bench.array(), values > np.float32(0.5))
    assert kept(bench) == ["mask"]


class NoCommit(MemoryStore):
    """Refuses to commit one reference."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused

    def put(self, reference: str, volume: Volume) -> None:
        if reference == self.refused:
            raise OutputError.cannot_write(reference, "no room")
        super().put(reference, volume)


def test_probabilities_that_cannot_be_committed_leave_nothing(bench: Bench) -> None:
    store = NoCommit("probabilities")
    store.put("scan", Volume(noise((12, 10, 9)), make_grid()))
    run_into(OutputError, bench, volumes=store)
    assert kept(bench, store) == []


def test_a_mask_that_cannot_be_committed_is_an_output_error(bench: Bench) -> None:
    store = NoCommit("mask")
    store.put("scan", Volume(noise((12, 10, 9)), make_grid()))
    run_into(OutputError, bench, volumes=store)
    assert "mask" not in kept(bench, store)


@pytest.mark.parametrize(
    "names",
    [("same", "same"), ("mask", None, "mask"), ("mask", None, "s.json", "s.json"), ("mask", None, None, "r", "r")],
)
def test_two_outputs_of_one_name_are_a_usage_error(names: Sequence[str | None]) -> None:
    mask, *others = names
    assert mask is not None
    with pytest.raises(UsageError, match="outputs: expected a name of its own for each"):
        Outputs(mask, *others)


@pytest.mark.parametrize("field", ["mask", "probabilities", "statistics", "preview", "report", "label_table"])
def test_an_output_never_replaces_an_input(bench: Bench, field: str) -> None:
    scan = bench.put(noise((12, 10, 9)))
    outputs = Outputs(**{"mask": "mask", field: "scan"})
    with pytest.raises(UsageError, match=r"expected a place of its own, got .*, the place of the input scan"):
        bench.segment(load(brighter_than(0.5), make_card()), outputs=outputs)
    assert bench.volumes.get("scan") is scan
    assert kept(bench) == []


@pytest.mark.parametrize(
    ("scan", "results"),
    [
        ("T1.IMG", {"mask": "T1.hdr"}),
        ("T1.hdr", {"mask": "none/../T1.img"}),
        ("scan.nii", {"mask": "m.nii", "report": "./scan.nii"}),
        ("scan.nii", {"mask": "m.nii", "preview": "link.nii"}),
        ("scan.nii", {"mask": "m.nii.gz", "probabilities": "./m.nii.gz"}),
        ("scan.nii", {"mask": "m.hdr", "probabilities": "m.img"}),
        ("scan.nii", {"mask": "m.nii", "statistics": "a/../s.csv", "report": "s.csv"}),
    ],
)
def test_results_have_places_of_their_own_however_they_are_spelled(
    bench: Bench, tmp_path: Path, scan: str, results: dict[str, str]
) -> None:
    (tmp_path / "link.nii").symlink_to(tmp_path / "scan.nii")
    ports = SegmentPorts(NiftiStore(tmp_path), bench.artifacts, PngPictures(), bench.resources)
    outputs = Outputs(**{output: f"{tmp_path}/{name}" for output, name in results.items()})
    before, loaded = set(tmp_path.iterdir()), load(brighter_than(0.5), make_card())
    with pytest.raises(UsageError, match="expected a place of its own"):
        segment([str(tmp_path / scan)], loaded, outputs, RunOptions(), bench.progress, ports=ports)
    assert set(tmp_path.iterdir()) == before


def test_a_missing_input_is_an_input_error(bench: Bench) -> None:
    with pytest.raises(InputError, match="absent"):
        bench.segment(load(brighter_than(0.5), make_card()), inputs=["absent"])
    assert kept(bench) == []

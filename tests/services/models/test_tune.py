"""Ways to score are measured against fp32 with the card's tiles; the fastest that gives the same labels is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.tunings.folder import TuningDirectory
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import InputError, LimitError, ModelError, UsageError
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import Rescale, ShiftScale, Window, ZScore
from voxport.domain.parity import BOUNDS, Bounds, Certificate, Parity, RuntimeParity
from voxport.domain.run import RunOptions
from voxport.domain.tuning import Candidate, Choice, Tuning
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from voxport.services.models.calibration import Recorder, put_noise, put_volumes
from voxport.services.models.loading import Tunings, model_key
from voxport.services.models.tune import TunePorts, larger_patches, tune
from voxport.services.segmentation.segment import Segmentation, SegmentPorts
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources
from voxport.testing.tunings import MACHINE

from tests.services.conftest import ANY, Score, brighter_than, make_card, make_grid, noise

CARD = make_card(tiling=Tiling((8, 8, 8), divisor=4))


def off_by(share: float) -> Score:
    """Brighter than a half, with so large a share of the voxels, wherever they are, the other way round."""

    def infer(batch: Any) -> Any:
        logits = brighter_than(0.5)(batch)
        wrong = (batch[:, 0] * 1000) % 1 < share
        return np.where(wrong[:, None], logits[:, ::-1], logits)

    return infer


@dataclass
class Bench:
    """A model, runtimes by name and precision, and a clock that says what each takes for a voxel that it scores."""

    folder: Path
    ways: Mapping[tuple[str, str], tuple[Score, float]]
    card: ModelCard = CARD
    machine_threads: int = 2
    bounds: Bounds = BOUNDS
    layers: int = 0
    quantised_as: Callable[[int], Score] = field(default=lambda spared: brighter_than(0.5))  # noqa: ARG005
    overhead: float = 0.0
    calls: list[tuple[str, str, int | None]] = field(default_factory=list)
    measured: Counter[str] = field(default_factory=Counter)
    opened: list[FakeRuntime] = field(default_factory=list)
    volumes: MemoryStore = field(default_factory=MemoryStore)
    resources: FixedResources = field(default_factory=FixedResources)
    spared: int = 0
    fails_beyond: int = 10**9
    slows_after: Mapping[str, int] = field(default_factory=dict)

    def open(self, name: str) -> RuntimeOpener:
        def opener(model: Model, options: RuntimeOptions) -> InferenceRuntime:
            if (name, options.precision) not in self.ways:
                raise UsageError("--precision", expected="others", got=options.precision, do="choose another")
            function, cost = self.ways[(name, options.precision)]
            if options.precision == "int8":
                assert model.path.read_bytes() == b"quantised %d" % self.spared
                function = self.quantised_as(self.spared)

            def infer(batch: Any) -> Any:
                if batch[0, 0].size > self.fails_beyond:
                    raise LimitError("net", expected="memory", got="too little", do="smaller tiles")
                self.cost = cost
                self.measured[name] += 1
                if self.measured[name] > self.slows_after.get(name, 10**9):
                    self.cost = 2 * cost
                return function(batch)

            self.runtime = FakeRuntime(infer)
            self.runtime.name, self.runtime.precision = name, options.precision
            self.calls.append((name, options.precision, options.threads))
            self.opened.append(self.runtime)
            return self.runtime

        return opener

    def seconds_of(self, done: Segmentation) -> float:
        voxels = done.prepared.plan.tile_count * np.prod(done.prepared.plan.tile)
        calls = -(-done.prepared.plan.tile_count // done.prepared.batch)
        return float(10 + self.cost * voxels + self.overhead * calls)

    def quantise(
        self, model: Model, inputs: Sequence[Any], destination: Path, *, spared: Sequence[float] = (0.0,)
    ) -> Iterator[int]:
        assert model.path == self.model.path
        assert inputs
        for number in dict.fromkeys(int(share * self.layers) for share in spared):
            self.spared = number
            if self.layers:
                destination.write_bytes(b"quantised %d" % self.spared)
                yield self.layers - self.spared

    @property
    def model(self) -> Model:
        return Model(self.folder / "net.onnx", self.card, "a" * 64, "b" * 64)

    @property
    def store(self) -> TuningDirectory:
        return TuningDirectory(self.folder / "tunings")

    def tune(self, values: Any = None) -> Tuning:
        names = []
        if values is not None:
            from voxport.domain.volume import Volume

            self.volumes.put("scan", Volume(values, make_grid(values.shape[-3:])))
            names = ["scan"]
        machine = replace(MACHINE, threads=self.machine_threads)
        ports = TunePorts(
            {name: self.open(name) for name in dict.fromkeys(name for name, _ in self.ways)},
            SegmentPorts(self.volumes, MemoryArtifacts(), PngPictures(), self.resources),
            MemoryStore,
            Tunings(self.store, machine, self.bounds),
            self,
            self.seconds_of,
        )
        tuned = tune(self.model, names, RecordingProgress(), RunOptions(), ports=ports)
        assert self.store.find(model_key(self.model), machine).tuning == tuned
        assert all(runtime.closed for runtime in self.opened)
        return tuned


SAME, FAR = brighter_than(0.5), off_by(0.2)
SCAN = noise((12, 10, 9))
FP32 = {("onnx", "fp32"): (SAME, 1.0)}


def found(tuned: Tuning, runtime: str, precision: str) -> Candidate:
    return next(c for c in tuned.candidates if (c.choice.runtime, c.choice.precision) == (runtime, precision))


def test_the_fastest_of_those_that_hold_is_kept(tmp_path: Path) -> None:
    ways = FP32 | {
        ("openvino", "fp32"): (SAME, 0.7),
        ("openvino", "bf16"): (off_by(0.0005), 0.3),
        ("torch", "fp32"): (SAME, 0.01),
    }
    tuned = Bench(tmp_path, ways, bounds=Bounds(0.99, 0.99)).tune(SCAN)
    assert (tuned.choice.runtime, tuned.choice.precision, tuned.choice.threads) == ("openvino", "bf16", 2)
    assert {c.choice.runtime for c in tuned.candidates} == {"onnx", "openvino"}
    first = tuned.candidates[0]
    assert (first.choice, first.note) == (Choice("onnx", "fp32", 2, (8, 8, 8)), "the reference")
    assert tuned.name == "affine:1.0.0"
    assert tuned.volume == "scan"


@pytest.mark.parametrize("bounds", [Bounds(0.99, 0), Bounds(0, 0.99)], ids=["agreement", "dice"])
def test_what_gives_other_labels_is_told_and_not_kept(tmp_path: Path, bounds: Bounds) -> None:
    tuned = Bench(tmp_path, FP32 | {("openvino", "bf16"): (FAR, 0.01)}, bounds=bounds).tune(SCAN)
    assert tuned.choice.runtime == "onnx"
    told = found(tuned, "openvino", "bf16")
    assert told.agreement is not None
    assert 0.7 < told.agreement.label_agreement < 0.9
    assert not told.holds(bounds)


def test_what_is_slower_is_not_kept(tmp_path: Path) -> None:
    tuned = Bench(tmp_path, FP32 | {("openvino", "fp32"): (SAME, 1.5)}).tune(SCAN)
    assert tuned.choice.runtime == "onnx"


def test_what_was_faster_at_first_and_is_slower_in_turns_is_not_kept(tmp_path: Path) -> None:
    """One tile, so that each run is one call: four runs, four with a batch of two, and six in turns."""
    card = make_card(tiling=Tiling((12, 12, 12), divisor=4))
    ways = FP32 | {("openvino", "fp32"): (SAME, 0.95)}
    assert Bench(tmp_path / "a", ways, card=card).tune(SCAN).choice.runtime == "openvino"
    tuned = Bench(tmp_path / "b", ways, card=card, slows_after={"openvino": 8}).tune(SCAN)
    slow, fast = (found(tuned, name, "fp32").seconds for name in ("openvino", "onnx"))
    assert (slow or 0.0) > (fast or 0.0) > 0
    assert tuned.choice.runtime == "onnx"


def test_larger_tiles_are_kept_where_the_labels_are_the_same(tmp_path: Path) -> None:
    """A network of single voxels cares for no tiles; 12 x 12 x 12 in one tile is the least that can be scored."""
    tuned = Bench(tmp_path, FP32).tune(SCAN)
    assert tuned.choice.patch in {(12, 12, 8), (12, 8, 12), (8, 12, 12)}
    assert {c.choice.patch for c in tuned.candidates} >= {(8, 8, 8), (12, 8, 8), (8, 12, 8), (8, 8, 12)}


def test_larger_tiles_that_sway_the_labels_are_not_kept(tmp_path: Path) -> None:
    def swayed(batch: Any) -> Any:
        """As a network that normalises by what lies in the tile."""
        return brighter_than(0.5)(batch - batch.mean(axis=(2, 3, 4), keepdims=True) + 0.5)

    tuned = Bench(tmp_path, {("onnx", "fp32"): (swayed, 1.0)}).tune(SCAN + np.linspace(0, 1, 12)[:, None, None])
    assert tuned.choice.patch == (8, 8, 8)
    assert any(c.agreement is not None and not c.holds(Bounds()) for c in tuned.candidates)


def test_tiles_that_the_runtime_has_no_memory_for_are_told(tmp_path: Path) -> None:
    tuned = Bench(tmp_path, FP32, fails_beyond=512).tune(SCAN)
    assert tuned.choice.patch == (8, 8, 8)
    assert "too little" in tuned.candidates[1].note


def test_tiles_that_would_take_more_memory_than_is_free_are_not_tried(tmp_path: Path) -> None:
    resources = FixedResources(available=10**12, peak=10**15)
    tuned = Bench(tmp_path, FP32, resources=resources).tune(SCAN)
    assert tuned.choice.patch == (8, 8, 8)
    assert {c.note.partition(":")[0] for c in tuned.candidates[1:] if c.agreement is None} == {"not tried"}


def test_several_tiles_a_call_are_kept_where_that_is_faster(tmp_path: Path) -> None:
    assert Bench(tmp_path, FP32, overhead=100.0).tune(SCAN).choice.batch == 2
    assert Bench(tmp_path / "other", FP32).tune(SCAN).choice.batch == 1


def test_half_of_the_threads_are_tried_where_there_are_four(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FP32, machine_threads=4)
    bench.tune(SCAN)
    assert {threads for _, _, threads in bench.calls} == {4, 2}


def test_a_network_that_takes_one_size_keeps_it() -> None:
    tiling = Tiling((8, 8, 8), divisor=4)
    assert list(larger_patches(tiling, (8, 8, 8), (32, 32, 32), (1, 1, 8, 8, 8))) == []


def test_larger_tiles_are_multiples_of_the_divisor_and_no_longer_than_the_volume() -> None:
    patches = list(larger_patches(Tiling((8, 8, None), divisor=4), (8, 8, 16), (40, 13, 16), ANY))
    assert patches == [(16, 8, 16), (8, 16, 16), (16, 16, 16)]


# Certificates, noise, and what shows nothing


def certified(*ways: tuple[str, str]) -> ModelCard:
    entries = tuple(RuntimeParity(r, p, "1", Parity(1.0, (1.0,), 0.0)) for r, p in ways)
    return CARD.with_parity(Certificate("b" * 64, "2026-01-01", (), entries))


def test_without_labels_only_what_is_certified_is_kept_and_only_with_the_cards_tiles(tmp_path: Path) -> None:
    ways = FP32 | {("openvino", "fp32"): (SAME, 0.5), ("openvino", "bf16"): (SAME, 0.1)}
    card = certified(("onnx", "fp32"), ("openvino", "fp32"))
    tuned = Bench(tmp_path, ways, card=card).tune(np.zeros((12, 10, 9), np.float32))
    assert tuned.choice == Choice("openvino", "fp32", 2, (8, 8, 8))
    assert "too few labels" in found(tuned, "openvino", "bf16").note


def test_a_model_whose_certificate_covers_nothing_here_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="certified runtime"):
        Bench(tmp_path, FP32, card=certified(("elsewhere", "fp32"))).tune(SCAN)


def test_a_checkpoint_cannot_be_tuned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FP32)
    ports = TunePorts({}, None, MemoryStore, None, bench)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="voxport export"):
        tune(replace(bench.model, format="checkpoint"), [], RecordingProgress(), RunOptions(), ports=ports)


def test_without_a_volume_smooth_noise_is_taken_the_same_each_time(tmp_path: Path) -> None:
    tuned = Bench(tmp_path, FP32 | {("openvino", "fp32"): (SAME, 0.5)}).tune()
    assert tuned.volume == "smooth noise"
    assert tuned.choice.runtime == "openvino"
    one, other = MemoryStore(), MemoryStore()
    (name,) = put_noise(CARD, one)
    put_noise(CARD, other)
    assert one.get(name) == other.get(name)
    assert one.get(name).array.shape == (1, 12, 12, 12)


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [
        ((), 0, 1),
        ((Window(-57, 164),), -57, 164),
        ((ShiftScale(0, 0.01),), 0, 100),
        ((ShiftScale(57, 0.005),), -57, 143),
        ((ShiftScale(57, 0),), 0, 255),
        ((ZScore(mean=100, std=20), Window(-1, 1)), 100, 120),
        ((ZScore(),), 0, 255),
        ((Rescale(0, 1),), 0, 255),
    ],
)
def test_noise_spans_what_the_cards_first_step_is_for(steps: Any, low: float, high: float) -> None:
    store = MemoryStore()
    names = put_noise(make_card((0, 1), intensity=steps), store)
    assert len(names) == 2
    for name in names:
        values = store.get(name).array
        assert (values.min(), values.max()) == pytest.approx((low, high), abs=1e-3 * (high - low))


@pytest.mark.parametrize("codes", ["RAS", "SPL"])
def test_a_large_volume_is_cropped_to_its_middle_where_tiles_still_overlap(codes: str) -> None:
    from voxport.domain.volume import Volume

    card, source, target = make_card(tiling=Tiling((8, 16, 32), divisor=4)), MemoryStore(), MemoryStore()
    values = np.arange(40 * 50 * 60, dtype=np.float32).reshape(40, 50, 60)
    grid = make_grid((40, 50, 60), codes=codes)
    source.put("scan", Volume(values, grid))
    (name,) = put_volumes(["scan"], card, source, target)
    cropped = target.get(name)
    assert cropped.grid.axis_codes == codes
    assert cropped.reoriented("RAS").array.shape == ((1, 12, 24, 48) if codes == "RAS" else (1, 12, 24, 40))
    start = [(n - m) // 2 for n, m in zip(values.shape, cropped.array.shape[1:], strict=True)]
    assert cropped.array[0, 0, 0, 0] == values[tuple(start)]


@pytest.mark.parametrize(
    ("card", "shape"),
    [
        # patches of 8, 16 and 32 voxels, as they are stored
        (make_card(tiling=Tiling((8, 16, 32)), orientation=None), (12, 24, 48)),
        (make_card(tiling=Tiling((8, 16, 32))), (48, 24, 12)),
        # 16, 16 and 24 as they are stored: as many more as the spacing is coarser, but no fewer where it is finer
        (make_card(tiling=Tiling((8, 16, 24)), orientation=None, spacing=(2.0, 0.5, 1.0), unit="mm"), (24, 24, 36)),
    ],
)
def test_of_a_volume_as_much_is_kept_as_tiles_take_of_its_stored_voxels(
    card: ModelCard, shape: tuple[int, int, int]
) -> None:
    from voxport.domain.volume import Volume

    source, target = MemoryStore(), MemoryStore()
    source.put("scan", Volume(noise((60, 50, 70)), make_grid((60, 50, 70), codes="SPL")))
    (name,) = put_volumes(["scan"], card, source, target)
    assert target.get(name).grid.shape == shape


def test_a_case_that_does_not_fit_the_card_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="channel"):
        Bench(tmp_path, FP32, card=make_card(2)).tune(SCAN)


# int8


def test_what_is_quantised_and_holds_can_be_kept_with_its_file(tmp_path: Path) -> None:
    ways = FP32 | {("openvino", "int8"): (SAME, 0.1)}
    bench = Bench(tmp_path, ways, layers=16)
    tuned = bench.tune(SCAN)
    assert tuned.choice.precision == "int8"
    assert found(tuned, "openvino", "int8").note == "16 layers in int8"
    kept = bench.store.quantised(tuned)
    assert kept is not None
    assert kept.read_bytes() == b"quantised 0"


def test_layers_are_spared_until_the_labels_agree(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        FP32 | {("openvino", "int8"): (SAME, 0.1)},
        layers=16,
        quantised_as=lambda spared: FAR if spared < 4 else SAME,
    )
    tuned = bench.tune(SCAN)
    tried = [c for c in tuned.candidates if c.choice.precision == "int8" and c.choice.patch == (8, 8, 8)]
    assert [(c.note, c.holds(Bounds())) for c in tried[:3]] == [
        ("16 layers in int8", False),
        ("14 layers in int8", False),
        ("12 layers in int8", True),
    ]
    kept = bench.store.quantised(tuned)
    assert kept is not None
    assert kept.read_bytes() == b"quantised 4"


def test_a_quantised_network_with_other_labels_is_not_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FP32 | {("openvino", "int8"): (SAME, 0.1)}, layers=16, quantised_as=lambda _: FAR)
    tuned = bench.tune(SCAN)
    assert tuned.choice.precision == "fp32"
    assert tuned.quantised_sha256 is None
    assert bench.store.quantised(tuned) is None


def test_a_network_that_cannot_be_quantised_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    class Failing(Bench):
        def quantise(self, model: Model, *_: object, **__: object) -> Iterator[int]:
            yield from ()
            raise ModelError(model.path.name, expected="a network", got="another", do="nothing")

    ways = FP32 | {("openvino", "int8"): (SAME, 0.1), ("openvino", "bf16"): (SAME, 0.2)}
    tuned = Failing(tmp_path, ways).tune(SCAN)
    assert tuned.choice.precision == "bf16"
    assert "got another" in found(tuned, "openvino", "int8").note


def test_of_many_inputs_a_few_are_kept_from_all_along() -> None:
    recorder = Recorder(FakeRuntime(SAME))
    for number in range(100):
        recorder.infer(np.full((1, 1, 2, 2, 2), number, np.float32))
    kept = [int(batch[0, 0, 0, 0, 0]) for batch in recorder.inputs]
    assert 4 <= len(kept) <= 8
    assert kept[0] == 0
    assert len(set(np.diff(kept))) == 1
    assert kept[-1] >= 80

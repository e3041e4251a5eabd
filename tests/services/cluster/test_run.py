"""A case in blocks has the bits of a case in one run: labels, probabilities, statistics, notes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.schedulers.inline import InlineScheduler
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.adapters.volumes.ome_zarr.blocks import OmeZarrBlocks
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.cards.model_card import Crop, ModelCard, ResamplingRule
from voxport.domain.errors import CancelledError, LimitError, ModelError, OutputError, UsageError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.inference.patches import Padding, Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ZScore
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.postprocessing import FillHoles, KeepLargest, RemoveSmall
from voxport.domain.run import Outputs, RunOptions
from voxport.ports.block_scheduler import BlockTask, Workbench
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.services.cluster.run import ClusterPorts
from voxport.services.cluster.tasks import MODEL, WorkerPorts
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.segment import Segmentation, SegmentPorts, segment
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import load, make_card, make_grid

EDGES = (26, 23, 18)


def uneven(batch: Floats) -> Floats:
    """Logits of two classes that depend on the whole patch, and on the place in it."""
    ramp = np.linspace(0, 1, batch.shape[2], dtype=np.float32)[:, None, None]
    mean = batch.mean(axis=(1, 2, 3, 4), keepdims=True)
    found: Floats = np.concatenate([-batch[:, :1] + mean, batch[:, :1] - 0.4 * mean + 0.3 * ramp], axis=1)
    return found


@dataclass
class Place:
    """A folder with stored volumes, and everything to segment them, at once or in blocks."""

    folder: Path
    tasks: list[tuple[str, int]] = field(default_factory=list)
    runtime: FakeRuntime | None = None
    progress: RecordingProgress = field(default_factory=RecordingProgress)
    kill_after: int | None = None

    def store(self, values: NDArray[Any], grid: Grid, name: str) -> str:
        path = str(self.folder / name)
        with self.volumes.create(path, grid, values.dtype, channels=len(values)) as sink:
            sink.write(Box.whole(grid.shape), values)
            sink.commit()
        return path

    @property
    def volumes(self) -> RoutedStore:
        return RoutedStore(NiftiStore(self.folder), OmeZarrStore())

    def worker_ports(self) -> WorkerPorts:
        def opened(model: Model, options: RuntimeOptions) -> InferenceRuntime:
            assert model.path.is_file()
            assert self.runtime is not None
            assert options.precision == "fp32"
            self.runtime.closed = False
            return self.runtime

        own = OmeZarrBlocks(self.volumes)
        return WorkerPorts(self.volumes, own, FsspecBlobs, {"fake": opened}, FixedResources(), "1.0")

    def cluster(self, **options: Any) -> ClusterPorts:
        place = self

        class Watched(InlineScheduler):
            """Records its tasks, and stops as a killed process does."""

            def map(self, task: BlockTask, blocks: Sequence[int], **more: Any) -> Any:
                def watched(bench: Workbench, block: int) -> Any:
                    if place.kill_after is not None and len(place.tasks) >= place.kill_after:
                        raise KeyboardInterrupt
                    stage = task.args[1] if isinstance(task, partial) else ""
                    place.tasks.append((stage if isinstance(stage, str) else "surveyed", block))
                    return task(bench, block)

                return super().map(watched, blocks, **more)

        ports = self.worker_ports()
        found = ClusterPorts(
            Watched, ports.block_volumes, ports.open_blobs, self.worker_ports, FileLocks(), "1.0", edge=12
        )
        return replace(found, **options)

    def segment(
        self,
        loaded: LoadedModel,
        inputs: Sequence[str],
        outputs: Outputs,
        cluster: ClusterPorts | None = None,
        **options: Any,
    ) -> Segmentation:
        model = self.folder / "model.onnx"
        model.write_bytes(b"a network")
        sha = hashlib.sha256(b"a network").hexdigest()
        loaded = replace(loaded, model=replace(loaded.model, path=model, sha256=sha))
        assert isinstance(loaded.runtime, FakeRuntime)
        self.runtime = loaded.runtime
        ports = SegmentPorts(self.volumes, LocalFiles(), PngPictures(), FixedResources(), cluster=cluster)
        return segment(inputs, loaded, outputs, RunOptions(**options), self.progress, ports=ports)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose OME-Zarr has small chunks, so that several boxes are written."""
    monkeypatch.setattr("voxport.adapters.volumes.ome_zarr.sink.CHUNK", (9, 12, 16))
    monkeypatch.setattr(OmeZarrBlocks, "chunk", (16, 12, 9))
    monkeypatch.setattr("voxport.adapters.blobs.fsspec.flush", lambda _: None)  # a power cut is not tested here
    return Place(tmp_path)


def values_of(channels: int, dtype: Any, seed: int = 0) -> NDArray[Any]:
    smooth = np.cumsum(np.random.default_rng(seed).standard_normal((channels, *EDGES)), axis=1)
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    values: NDArray[Any] = (scaled * (200 if np.issubdtype(dtype, np.integer) else 1)).astype(dtype)
    return values


def card_of(
    *,
    crop: Crop | None = None,
    rule: ResamplingRule | None = None,
    resample: str = "logits",
    order: int = 1,
    post: tuple[Any, ...] = (),
    **options: Any,
) -> ModelCard:
    card = make_card(**options)
    given = replace(card.input, crop=crop, resampling=rule or ResamplingRule())
    output = replace(card.output, postprocessing=post, resample=resample, order=order)  # type: ignore[arg-type]
    return replace(card, input=given, output=output)


GAUSSIAN = Tiling((8, 8, 8))
SPACED: dict[str, Any] = {"spacing": (1.3, 0.8, 1.0), "unit": "mm"}
KINDS: dict[str, tuple[ModelCard, dict[str, Any]]] = {
    "gaussian": (card_of(tiling=GAUSSIAN), {}),
    "constant": (card_of(tiling=replace(GAUSSIAN, blending="constant", overlap=0.25)), {}),
    "halo": (card_of(tiling=replace(GAUSSIAN, blending="halo", overlap=0.6)), {}),
    "context": (card_of(tiling=Tiling((8, 8, 8), 4, 0.0, "halo", Padding("edge"), context=(2, 2, 1))), {}),
    "as MONAI": (card_of(tiling=replace(GAUSSIAN, windows="monai")), {}),
    "as nnU-Net": (card_of(tiling=replace(GAUSSIAN, windows="nnunet", mirror=(0, 2))), {}),
    "thicker than the volume": (card_of(tiling=Tiling((8, 8, 32), padding=Padding("reflect", to="patch"))), {}),
    "in another order": (card_of(orientation="PIR", axes="ZYX", tiling=GAUSSIAN), {}),
    "integers": (card_of(intensity=[ClipPercentiles(2, 98), Rescale(0, 1)], tiling=GAUSSIAN), {"dtype": np.uint16}),
    "floats": (card_of(intensity=[ZScore()], tiling=GAUSSIAN), {"dtype": np.float32}),
    "two channels": (card_of(channels=2, intensity=[ZScore()], tiling=GAUSSIAN), {"dtype": np.int16, "channels": 2}),
    "resampled": (card_of(**SPACED, tiling=GAUSSIAN), {}),
    "resampled as cubic": (card_of(**SPACED, rule=ResamplingRule(3, "auto"), order=1, tiling=GAUSSIAN), {}),
    "resampled first": (
        card_of(**SPACED, rule=ResamplingRule(1, when="before_intensity"), intensity=[ZScore()], tiling=GAUSSIAN),
        {"dtype": np.uint8},
    ),
    "resampled as labels": (card_of(**SPACED, resample="labels", tiling=GAUSSIAN), {}),
    "resampled as probabilities": (card_of(**SPACED, resample="probabilities", tiling=GAUSSIAN), {}),
    "cropped": (card_of(crop=Crop("above", 0.3, 1), tiling=GAUSSIAN), {}),
    "several labels": (card_of(activation="sigmoid", labels=(1, 2), tiling=GAUSSIAN), {}),
    "postprocessed": (
        card_of(tiling=GAUSSIAN, post=(KeepLargest((1,)), FillHoles((1,)), RemoveSmall((1,), 3.0, "mm"))),
        {},
    ),
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("all_volumes", [False, True])
def test_blocks_give_the_bytes_of_one_run(place: Place, kind: str, all_volumes: bool) -> None:
    card, stored = KINDS[kind]
    values = values_of(stored.get("channels", 1), stored.get("dtype", np.float32))
    scan = place.store(values, make_grid(EDGES, codes="LPS"), "scan.nii.gz")
    outputs, folders = [], []
    for name, cluster in (("one", None), ("blocks", place.cluster())):
        folder = place.folder / name
        folder.mkdir()
        folders.append(folder)
        names = Outputs(
            str(folder / "mask.ome.zarr"),
            str(folder / "probabilities.nii.gz") if all_volumes else None,
            str(folder / "statistics.json"),
            str(folder / "preview.png"),
            uncertainty=str(folder / "uncertainty.ome.zarr") if all_volumes else None,
        )
        outputs.append(place.segment(load(uneven, card), [scan], names, cluster))
    one, blocks = outputs
    assert files_of(folders[1]) == files_of(folders[0])
    assert blocks.statistics == one.statistics
    assert 0 < one.statistics[0].voxels < np.prod(EDGES)
    assert (blocks.warnings, blocks.postprocessing, blocks.outputs) == (
        one.warnings,
        one.postprocessing,
        tuple((reference.replace("/one/", "/blocks/"), sha256) for reference, sha256 in one.outputs),
    )
    counts = {stage: [block for name, block in place.tasks if name == stage] for stage, _ in place.tasks}
    assert len(counts["inferred"]) >= 4
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in counts.values())
    assert ("joined" in counts) == (card.tiling.blending != "halo")
    integers = np.issubdtype(values.dtype, np.integer)
    assert ("surveyed" in counts) == (integers and card.input.crop is None)


@pytest.mark.parametrize("edge", [8, 1000])
def test_no_tile_is_inferred_twice(place: Place, edge: int) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    whole = load(uneven, card)
    done = place.segment(whole, [scan], Outputs(str(place.folder / "one.nii")))
    blocks = load(uneven, card)
    place.segment(blocks, [scan], Outputs(str(place.folder / "two.nii")), place.cluster(edge=edge))
    assert (place.folder / "one.nii").read_bytes() == (place.folder / "two.nii").read_bytes()
    assert isinstance(blocks.runtime, FakeRuntime)
    assert len(blocks.runtime.calls) == done.prepared.plan.tile_count + 1  # of noise, which tells processors apart


@pytest.mark.parametrize(("kind", "step"), [("gaussian", 1), ("halo", 2), ("resampled", 5), ("postprocessed", 5)])
def test_a_run_that_is_killed_at_any_task_goes_on_and_repeats_one_at_most(place: Place, kind: str, step: int) -> None:
    card, stored = KINDS[kind]
    scan = place.store(values_of(1, stored.get("dtype", np.float32)), make_grid(EDGES), "scan.nii")
    one, mask = place.folder / "one.ome.zarr", place.folder / "mask.ome.zarr"
    place.segment(load(uneven, card), [scan], Outputs(str(one)))
    run: Callable[[], Segmentation] = lambda: place.segment(  # noqa: E731
        load(uneven, card), [scan], Outputs(str(mask)), place.cluster(edge=13)
    )
    run()
    whole, (known,) = len(place.tasks), [files_of(mask)]
    for kill_after in range(0, whole, step):
        place.tasks.clear()
        shutil.rmtree(mask)
        place.kill_after = kill_after
        with pytest.raises(KeyboardInterrupt):
            run()
        assert not mask.exists()
        place.kill_after = None
        run()
        surveys = [task for task in place.tasks if task[0] == "surveyed"]
        others = [task for task in place.tasks if task[0] != "surveyed"]
        assert len(others) == len(set(others))
        assert len(surveys) <= 2
        assert files_of(mask) == known
        assert sorted(path.name for path in place.folder.glob("*.blocks")) == []
    about = {name: content for name, content in files_of(one).items() if name != "zarr.json"}
    assert about == {name: content for name, content in known.items() if name != "zarr.json"}


def test_labels_that_were_half_changed_are_written_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill amid postprocessing, which changes the labels in place."""
    card, _ = KINDS["postprocessed"]
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    one, mask = place.folder / "one.ome.zarr", place.folder / "mask.ome.zarr"
    first = place.segment(load(uneven, card), [scan], Outputs(str(one)), place.cluster())

    def killed(*_: Any, write: Callable[[Box, Any], object], **__: Any) -> None:
        write(Box((0, 0, 0), (26, 23, 9)), np.zeros((26, 23, 9), np.uint8))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("voxport.services.segmentation.segment.postprocess", killed)
        with pytest.raises(KeyboardInterrupt):
            place.segment(load(uneven, card), [scan], Outputs(str(mask)), place.cluster())
    again = place.segment(load(uneven, card), [scan], Outputs(str(mask)), place.cluster())
    assert again.statistics == first.statistics
    assert again.postprocessing == first.postprocessing


def killed_run(place: Place, card: ModelCard, scan: str, mask: Path, **options: Any) -> None:
    place.kill_after = 5
    with pytest.raises(KeyboardInterrupt):
        place.segment(load(uneven, card), [scan], Outputs(str(mask)), place.cluster(), **options)
    place.kill_after = None


def test_another_model_volume_version_or_option_does_not_go_on_with_a_run(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    mask = place.folder / "mask.ome.zarr"
    killed_run(place, card, scan, mask)
    outputs = Outputs(str(mask))
    other = replace(card, output=replace(card.output, table=LabelTable((Label(3, "three"),))))
    with pytest.raises(UsageError, match="another options"):
        place.segment(load(uneven, other), [scan], outputs, place.cluster())
    with pytest.raises(UsageError, match="another options"):
        place.segment(load(uneven, card), [scan], outputs, place.cluster(), overlap=0.25)
    with pytest.raises(UsageError, match="another voxport"):
        place.segment(load(uneven, card), [scan], outputs, place.cluster(version="2.0"))
    place.store(values_of(1, np.float32, seed=5), make_grid(EDGES), "scan.nii")
    with pytest.raises(UsageError, match=r"another volumes.* or delete .*mask.ome.zarr.blocks") as refused:
        place.segment(load(uneven, card), [scan], outputs, place.cluster())
    shutil.rmtree(Path(refused.value.subject))  # as it says
    place.segment(load(uneven, card), [scan], outputs, place.cluster())


def test_a_worker_with_another_version_is_refused(place: Place) -> None:
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    old = lambda: replace(place.worker_ports(), version="0.9")  # noqa: E731
    outputs = Outputs(str(place.folder / "mask.nii"))
    with pytest.raises(UsageError, match=r"voxport 1\.0, got 0\.9"):
        place.segment(load(uneven, card_of(tiling=GAUSSIAN)), [scan], outputs, place.cluster(open_ports=old))


def test_another_model_file_in_the_runs_folder_is_refused(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    mask = place.folder / "mask.ome.zarr"
    killed_run(place, card, scan, mask)
    kept = place.folder / "mask.ome.zarr.blocks"
    FsspecBlobs(str(kept)).put(MODEL, io.BytesIO(b"another network"))
    with pytest.raises(ModelError, match="expected the model of the run, got another file; delete the run's folder"):
        place.segment(load(uneven, card), [scan], Outputs(str(mask)), place.cluster())
    assert not mask.exists()
    shutil.rmtree(kept)  # as it says
    place.segment(load(uneven, card), [scan], Outputs(str(mask)), place.cluster())
    assert mask.exists()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_task_that_is_run_again_gives_its_record_and_does_no_work(place: Place, dtype: Any) -> None:
    """As where a scheduler did not see that a worker had finished."""

    class Forgetful(InlineScheduler):
        def map(self, task: BlockTask, blocks: Sequence[int], **more: Any) -> Any:
            def twice(bench: Workbench, block: int) -> Any:
                first = task(bench, block)
                calls = len(runtime.calls)
                assert json.dumps(task(bench, block)) == json.dumps(first)
                assert len(runtime.calls) == calls
                place.tasks.append(("", block))
                return first

            return super().map(twice, blocks, **more)

    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, dtype), make_grid(EDGES), "scan.nii")
    names = [str(place.folder / name) for name in ("one.nii", "mask.nii")]
    place.segment(load(uneven, card), [scan], Outputs(names[0]))
    loaded = load(uneven, card)
    assert isinstance(loaded.runtime, FakeRuntime)
    runtime = loaded.runtime
    place.segment(loaded, [scan], Outputs(names[1]), place.cluster(scheduler=Forgetful))
    assert len(place.tasks) > 4
    assert Path(names[0]).read_bytes() == Path(names[1]).read_bytes()


def test_an_error_says_that_blocks_are_kept_where_some_are(place: Place) -> None:
    old = lambda: replace(place.worker_ports(), version="0.9")  # noqa: E731
    for dtype, kept in ((np.uint8, False), (np.float32, True)):  # refused in the survey, and with the first block
        scan = place.store(values_of(1, dtype), make_grid(EDGES), f"{kept}.nii")
        outputs = Outputs(str(place.folder / f"mask-{kept}.nii"))
        with pytest.raises(UsageError) as refused:
            place.segment(load(uneven, card_of(tiling=GAUSSIAN)), [scan], outputs, place.cluster(open_ports=old))
        assert ("is kept in" in str(refused.value)) == kept
        assert Path(f"{outputs.mask}.blocks").exists() == kept


def test_a_mask_that_another_process_makes_is_refused(place: Place) -> None:
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    outputs = Outputs(str(place.folder / "mask.nii"))
    with (
        FileLocks().hold(place.folder / "mask.nii.blocks" / "lock"),
        pytest.raises(UsageError, match="another process"),
    ):
        place.segment(load(uneven, card_of(tiling=GAUSSIAN)), [scan], outputs, place.cluster())


@pytest.mark.parametrize(
    ("card", "what"),
    [
        (card_of(crop=Crop("nonzero"), intensity=[ZScore(within="crop")], tiling=GAUSSIAN), "one machine"),
    ],
)
def test_what_cannot_be_done_in_blocks_is_refused_before_anything_runs(
    place: Place, card: ModelCard, what: str
) -> None:
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    with pytest.raises(UsageError, match=what):
        place.segment(load(uneven, card), [scan], Outputs(str(place.folder / "mask.nii")), place.cluster())
    loaded = load(uneven, card_of(tiling=GAUSSIAN))
    quantised = replace(loaded, quantised_sha256="c" * 64)
    with pytest.raises(UsageError, match="fp32"):
        place.segment(quantised, [scan], Outputs(str(place.folder / "mask.nii")), place.cluster())
    checkpoint = replace(loaded, model=replace(loaded.model, format="checkpoint"))
    with pytest.raises(UsageError, match="export it"):
        place.segment(checkpoint, [scan], Outputs(str(place.folder / "mask.nii")), place.cluster())
    assert place.tasks == []
    assert sorted(path.name for path in place.folder.iterdir()) == ["model.onnx", "scan.nii"]


def test_a_block_that_fails_is_named_and_the_others_are_kept(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    outputs = Outputs(str(place.folder / "mask.nii"))
    calls = []

    def failing(batch: Floats) -> Floats:
        calls.append(1)
        if len(calls) > 100:
            raise LimitError("memory", expected="more", got="less", do="free some")
        return uneven(batch)

    with pytest.raises(LimitError, match=r"block \d+ of \d+ \(\d+ failed\): memory.*free some; then run again"):
        place.segment(load(failing, card), [scan], outputs, place.cluster(attempts=3))
    assert not Path(outputs.mask).exists()
    inferred = [block for stage, block in place.tasks if stage == "inferred"]
    failed = {block for block in inferred if inferred.count(block) > 1}
    assert [inferred.count(block) for block in failed] == [3] * len(failed)
    assert set(range(max(inferred) + 1)) == set(inferred)
    place.tasks.clear()
    place.segment(load(uneven, card), [scan], outputs, place.cluster())
    assert {block for stage, block in place.tasks if stage == "inferred"} == failed


def test_processors_that_round_in_other_ways_are_told(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    outputs = Outputs(str(place.folder / "mask.nii"))
    place.kill_after = 3
    with pytest.raises(KeyboardInterrupt):
        place.segment(load(uneven, card), [scan], outputs, place.cluster())
    place.kill_after = None
    done = place.segment(
        load(lambda batch: uneven(batch) * np.float32(1 + 1e-6), card), [scan], outputs, place.cluster()
    )
    assert any("2 kinds of processors" in warning for warning in done.warnings)


def test_blocks_are_as_large_as_a_workers_memory_allows(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    counts = []
    for memory in (10**9, 300_000, 160_000):
        place.tasks.clear()
        outputs = Outputs(str(place.folder / f"mask{memory}.nii"))
        place.segment(load(uneven, card), [scan], outputs, place.cluster(edge=None), memory_bytes=memory)
        counts.append(len({block for stage, block in place.tasks if stage == "inferred"}))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    with pytest.raises(LimitError, match="memory of a worker"):
        place.segment(load(uneven, card), [scan], outputs, place.cluster(edge=None), memory_bytes=1000)


def test_logits_out_of_range_and_a_cancelled_run(place: Place) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    outputs = Outputs(str(place.folder / "mask.nii"))
    with pytest.raises(ModelError, match="finite logits"):
        place.segment(load(lambda b: uneven(b) * np.float32(1e9), card), [scan], outputs, place.cluster())
    shutil.rmtree(place.folder / "mask.nii.blocks")

    class Cancelled(RecordingProgress):
        def advance(self, tiles: int) -> None:
            super().advance(tiles)
            if len(place.tasks) > 3:
                raise CancelledError

    place.progress = Cancelled()
    with pytest.raises(CancelledError):
        place.segment(load(uneven, card), [scan], outputs, place.cluster())
    assert not Path(outputs.mask).exists()


def test_a_full_disk_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_of(tiling=GAUSSIAN)
    scan = place.store(values_of(1, np.float32), make_grid(EDGES), "scan.nii")
    outputs = Outputs(str(place.folder / "mask.nii"))
    put = FsspecBlobs.put
    written = []

    def full(self: FsspecBlobs, name: str, content: Any) -> str:
        written.append(name)
        if len(written) > 40:
            raise OutputError(name, expected="free space", got="none", do="free some")
        return put(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(FsspecBlobs, "put", full)
        with pytest.raises(OutputError, match="free some; then run again"):
            place.segment(load(uneven, card), [scan], outputs, place.cluster())
    assert not Path(outputs.mask).exists()
    place.segment(load(uneven, card), [scan], outputs, place.cluster())
    one = place.folder / "one.nii"
    place.segment(load(uneven, card), [scan], Outputs(str(one)))
    assert one.read_bytes() == Path(outputs.mask).read_bytes()


def test_an_attempt_in_another_folder_goes_on_with_a_run(place: Place) -> None:
    """As of a job: each attempt has its own copies of the volumes, and its own place for the mask."""
    card, shared = card_of(tiling=GAUSSIAN), place.folder / "shared"
    shared.mkdir()
    for attempt in ("first", "second"):
        folder = place.folder / attempt
        folder.mkdir()
        scan = place.store(values_of(1, np.float32), make_grid(EDGES), f"{attempt}/scan.nii")
        outputs = Outputs(str(folder / "mask.ome.zarr"))
        if attempt == "first":
            place.kill_after = 6
            with pytest.raises(KeyboardInterrupt):
                place.segment(load(uneven, card), [scan], outputs, place.cluster(folder=shared))
            place.kill_after = None
    place.segment(load(uneven, card), [scan], outputs, place.cluster(folder=shared))
    assert len(place.tasks) == len(set(place.tasks))
    assert list(shared.iterdir()) == []
    one = place.folder / "one"
    one.mkdir()
    place.segment(load(uneven, card), [scan], Outputs(str(one / "mask.ome.zarr")))
    assert files_of(one) == {k: v for k, v in files_of(place.folder / "second").items() if k != "scan.nii"}

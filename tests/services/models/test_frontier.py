"""Time and Dice against truth at each overlap and precision, for cases of one folder or two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.tunings.folder import TuningDirectory
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import InputError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.inference.patches import Tiling
from voxport.domain.run import RunOptions
from voxport.domain.tuning import Tradeoff, mark_beaten
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.services.models.frontier import OVERLAPS, LabelledCase, labelled_cases, measure_tradeoffs
from voxport.services.models.loading import Tunings
from voxport.services.models.tune import TunePorts
from voxport.services.segmentation.segment import Segmentation, SegmentPorts
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources
from voxport.testing.tunings import MACHINE

from tests.services.conftest import brighter_than, make_card, make_grid, noise

CARD = make_card(tiling=Tiling((8, 8, 8), divisor=4))
THRESHOLDS = {("onnx", "fp32"): 0.5, ("openvino", "fp32"): 0.5, ("openvino", "bf16"): 0.4}


def put(path: Path, values: NDArray[Any], **grid: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    with NiftiStore().create(str(path), made := make_grid(values.shape, **grid), values.dtype) as sink:
        sink.write(Box.whole(made.shape), values)
        sink.commit()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        values = noise((12, 10, 9), seed=number)
        put(tmp_path / f"{number}_image.nii.gz", values)
        put(tmp_path / f"{number}_label.nii.gz", (255 * (values > 0.5)).astype(np.uint8))
    return tmp_path


def measured(folder: Path, cases: Sequence[LabelledCase]) -> tuple[Tradeoff, ...]:
    opened: list[FakeRuntime] = []

    def open_as(name: str) -> Any:
        def opener(model: Model, options: RuntimeOptions) -> InferenceRuntime:  # noqa: ARG001 - the port's signature
            if (name, options.precision) not in THRESHOLDS:
                raise UsageError("precision", expected="fp32", got=options.precision, do="choose another")
            runtime = FakeRuntime(brighter_than(THRESHOLDS[(name, options.precision)]))
            runtime.name, runtime.precision = name, options.precision
            opened.append(runtime)
            return runtime

        return opener

    def seconds_of(done: Segmentation) -> float:
        return done.prepared.plan.tile_count * (2.0 if opened[-1].name == "onnx" else 1.0)

    ports = TunePorts(
        {name: open_as(name) for name in ("onnx", "openvino", "torch")},
        SegmentPorts(NiftiStore(), MemoryArtifacts(), PngPictures(), FixedResources()),
        MemoryStore,
        Tunings(TuningDirectory(folder / "tunings"), MACHINE),
        None,  # type: ignore[arg-type]
        seconds_of,
    )
    model = Model(folder / "net.onnx", CARD, "a" * 64, "b" * 64)
    found = measure_tradeoffs(model, cases, RecordingProgress(), RunOptions(), ports=ports)
    assert all(runtime.closed for runtime in opened)
    return found


def test_each_overlap_is_measured_in_each_runtime_and_precision(folder: Path) -> None:
    found = measured(folder, labelled_cases([folder], CARD, NiftiStore()))
    assert {(f.runtime, f.precision, f.overlap) for f in found} == {(*way, o) for way in THRESHOLDS for o in OVERLAPS}
    for one in found:
        exact = THRESHOLDS[(one.runtime, one.precision)] == 0.5
        assert (one.mean_dice == 1.0) == exact
        assert exact or 0.8 < one.mean_dice < 1.0
    tiles = [one.tiles for one in found if one.runtime == "onnx"]
    assert tiles == sorted(tiles)
    assert tiles[0] < tiles[-1]
    best = [(one.runtime, one.precision, one.overlap) for one in found if not one.beaten]
    assert ("openvino", "fp32", 0.0) in best
    assert all(runtime == "openvino" for runtime, _, _ in best)


def test_what_another_beats_in_time_or_dice_is_off_the_frontier() -> None:
    def one(seconds: float, dice: float) -> Tradeoff:
        return Tradeoff("onnx", "fp32", 0.0, 1, seconds, (dice,))

    given = [one(1, 0.7), one(2, 0.8), one(2, 0.75), one(3, 0.8), one(4, 0.9)]
    assert [found.beaten for found in mark_beaten(given)] == [False, False, True, True, False]


def test_images_and_labels_may_lie_in_two_folders_with_numbered_channels(folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        for kind, name in (("image", f"imagesTr/{number}_0000.nii.gz"), ("label", f"labelsTr/{number}.nii.gz")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (folder / f"{number}_{kind}.nii.gz").rename(tmp_path / name)
    cases = labelled_cases([tmp_path / "imagesTr", tmp_path / "labelsTr"], CARD, NiftiStore())
    assert [case.name for case in cases] == ["0", "1"]
    assert all(found.mean_dice == 1.0 for found in measured(folder, cases) if found.precision == "fp32")


def test_labels_on_another_grid_are_refused(folder: Path) -> None:
    put(folder / "1_label.nii.gz", np.zeros((12, 10, 8), np.uint8))
    with pytest.raises(InputError, match="the grid of its image"):
        measured(folder, labelled_cases([folder], CARD, NiftiStore()))


def test_an_image_that_is_refused_is_named(folder: Path) -> None:
    values = noise((12, 10, 9))
    values[0] = np.nan
    (folder / "1_image.nii.gz").unlink()
    put(folder / "1_image.nii.gz", values)
    with pytest.raises(InputError, match=r"1_image\.nii\.gz: expected finite values"):
        measured(folder, labelled_cases([folder], CARD, NiftiStore()))


@pytest.mark.parametrize(
    ("names", "said"),
    [([], "NAME_image and NAME_label"), (["a_image.nii"], "no labels of a"), (["a.nii"], "NAME_image")],
)
def test_a_folder_without_labelled_cases_is_an_input_error(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        put(tmp_path / name, noise((4, 4, 4)))
    with pytest.raises(InputError, match=said):
        labelled_cases([tmp_path], CARD, NiftiStore())
    with pytest.raises(InputError, match="a folder of volumes, got no folder"):
        labelled_cases([tmp_path / "none"], CARD, NiftiStore())

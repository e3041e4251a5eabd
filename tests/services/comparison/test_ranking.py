"""Models are ranked by how well their masks agree with true labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.skeletons.skimage import SkimageSkeletoniser
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box
from voxport.domain.run import RunOptions
from voxport.ports.model import Model
from voxport.services.comparison.compare import ComparePorts
from voxport.services.comparison.ranking import RankedModel, RankPorts, rank_models
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.segment import SegmentPorts
from voxport.testing.affine import Floats
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import brighter_than, make_card, make_grid, noise

THRESHOLDS = {"far": 0.8, "exact": 0.5, "near": 0.45}


def put(path: Path, values: Floats) -> None:
    with NiftiStore().create(str(path), grid := make_grid(values.shape), values.dtype) as sink:
        sink.write(Box.whole(grid.shape), values)
        sink.commit()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        values = noise((12, 10, 9), seed=number)
        put(tmp_path / f"{number}_image.nii.gz", values)
        put(tmp_path / f"{number}_label.nii.gz", (255 * (values > 0.5)).astype(np.uint8))
    return tmp_path


def ranked(folder: Path, *names: str) -> tuple[RankedModel, ...]:
    opened: list[FakeRuntime] = []

    def load(model: Model) -> LoadedModel:
        opened.append(FakeRuntime(brighter_than(THRESHOLDS[model.card.name])))
        return LoadedModel(model, opened[-1])

    models = [Model(Path(f"{name}.onnx"), replace(make_card(), name=name), "a" * 64, "b" * 64) for name in names]
    segmenting = SegmentPorts(NiftiStore(), MemoryArtifacts(), PngPictures(), FixedResources())
    ports = RankPorts(segmenting, ComparePorts(NiftiStore(), SkimageSkeletoniser()), MemoryStore, load)
    found = rank_models(models, [folder], RecordingProgress(), RunOptions(), ports=ports)
    assert all(runtime.closed for runtime in opened)
    return found


def test_the_model_of_the_highest_mean_dice_comes_first(folder: Path) -> None:
    found = ranked(folder, "far", "exact", "near")
    assert [one.model.split(":")[0] for one in found] == ["exact", "near", "far"]
    assert [name for name, _ in found[0].cases] == ["0", "1"]
    assert found[0].means["dice"] == found[0].means["iou"] == 1.0
    for one, threshold in zip(found[1:], (0.45, 0.8), strict=True):
        dice = []
        for number in range(2):
            values = noise((12, 10, 9), seed=number)
            mine, true = values > threshold, values > 0.5
            dice.append(2 * (mine & true).sum() / (mine.sum() + true.sum()))
        assert one.mean("dice") == pytest.approx(np.mean(dice))


def test_labels_on_another_grid_are_refused(folder: Path) -> None:
    put(folder / "1_label.nii.gz", np.zeros((5, 5, 5), np.uint8))
    with pytest.raises(InputError, match="grid of the truth"):
        ranked(folder, "exact")

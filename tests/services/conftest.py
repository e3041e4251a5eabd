"""Small cases, cards and loaded models, all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.cards.model_card import Channel, Input, ModelCard
from voxport.domain.geometry.grid import Grid, Shape3
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import Step
from voxport.domain.labels.label_map import Activation, Label, LabelTable, Output
from voxport.domain.run import Outputs, RunOptions
from voxport.domain.volume import Volume
from voxport.ports.model import Model
from voxport.ports.runtime import NetworkShape
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.segment import Segmentation, SegmentPorts, segment
from voxport.testing.affine import Floats, affine_card
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

ANY: NetworkShape = (None, None, None, None, None)
Score = Callable[[Floats], NDArray[np.floating]]


def make_grid(
    shape: Shape3 = (12, 10, 9),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "mm",
    codes: str = "RAS",
) -> Grid:
    """A grid along the world's axes; ``shape`` and ``spacing`` are those of its stored axes."""
    directions = np.zeros((3, 3))
    for axis, letter in enumerate(codes):
        world = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        directions[world, axis] = 1.0 if letter in "RAS" else -1.0
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = (3.0, -20.0, 7.5)
    return Grid(shape, affine, unit)


def noise(shape: Sequence[int], seed: int = 0) -> Floats:
    """Values in [0, 1) with structure of a few voxels."""
    return np.random.default_rng(seed).random(tuple(shape), np.float32)


def make_card(
    channels: int | Sequence[int] = 1,
    labels: Sequence[int] = (1,),
    *,
    activation: Activation = "softmax",
    axes: Literal["XYZ", "ZYX"] = "XYZ",
    orientation: str | None = "RAS",
    spacing: tuple[float, float, float] | None = None,
    unit: str | None = None,
    intensity: Sequence[Step] = (),
    tiling: Tiling | None = None,
) -> ModelCard:
    """A card; ``channels`` is how many, or the source of each."""
    sources = range(channels) if isinstance(channels, int) else channels
    given = Input(
        tuple(Channel(f"channel {i}", source) for i, source in enumerate(sources)),
        axes=axes,
        orientation=orientation,
        spacing=spacing,
        spacing_unit=unit,
        intensity=tuple(intensity),
    )
    table = LabelTable(tuple(Label(value, f"label {value}") for value in labels))
    tiling = tiling or Tiling((8, 8, 8))
    return replace(affine_card(1, 2), input=given, tiling=tiling, output=Output(activation, table))


def brighter_than(threshold: float) -> Score:
    """Two classes: label 1 where the first channel is above a threshold."""

    def infer(batch: Floats) -> Floats:
        first = batch[:, :1]
        return np.concatenate([np.zeros_like(first), 8 * (first - np.float32(threshold))], axis=1)

    return infer


def load(
    function: Score, card: ModelCard, *, radius: int = 0, input_shape: NetworkShape = ANY, warning: str | None = None
) -> LoadedModel:
    """A card and a fake runtime as a loaded model."""
    model = Model(Path("folder/model.onnx"), card, "a" * 64, "b" * 64)
    return LoadedModel(model, FakeRuntime(function, radius=radius, input_shape=input_shape), warning)


def calls_of(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """The shapes of all batches that a loaded fake scored."""
    runtime = loaded.runtime
    assert isinstance(runtime, FakeRuntime)
    return runtime.calls


@dataclass
class Bench:
    """Everything around a use case, in memory."""

    volumes: MemoryStore = field(default_factory=MemoryStore)
    artifacts: MemoryArtifacts = field(default_factory=MemoryArtifacts)
    progress: RecordingProgress = field(default_factory=RecordingProgress)
    resources: FixedResources = field(default_factory=FixedResources)

    def put(self, values: ArrayLike, grid: Grid | None = None, name: str = "scan") -> Volume:
        """Keep a volume; without a grid, on one of its shape."""
        array = np.asarray(values)
        x, y, z = array.shape[-3:]
        volume = Volume(array, grid or make_grid((x, y, z)))
        self.volumes.put(name, volume)
        return volume

    def segment(
        self,
        loaded: LoadedModel,
        *,
        inputs: Sequence[str] = ("scan",),
        outputs: Outputs | None = None,
        **options: Any,
    ) -> Segmentation:
        """Segment what was put, to ``mask``."""
        return segment(
            inputs,
            loaded,
            outputs or Outputs("mask"),
            RunOptions(**options),
            self.progress,
            ports=SegmentPorts(self.volumes, self.artifacts, PngPictures(), self.resources),
        )

    def array(self, name: str = "mask") -> NDArray[Any]:
        """A kept volume's values: ``(x, y, z)`` of one channel, or ``(C, x, y, z)``."""
        array = self.volumes.get(name).array
        return array[0] if len(array) == 1 else array


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def opened(bench: Bench, stack: ExitStack) -> Callable[..., Case]:
    """Keeps volumes under their positions and opens them as one case."""

    def open_case(*volumes: Volume) -> Case:
        names = [f"volume {i}" for i in range(len(volumes))]
        for name, volume in zip(names, volumes, strict=True):
            bench.volumes.put(name, volume)
        return Case.open(bench.volumes, names, stack)

    return open_case

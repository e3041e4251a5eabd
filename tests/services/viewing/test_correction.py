"""A corrected mask differs from the run's where strokes were, and nowhere else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import UsageError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.brush import Stroke
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.services.viewing import correction as module
from voxport.services.viewing.correction import Correction
from voxport.services.viewing.volume_viewer import ShownMask

TABLE = LabelTable((Label(1, "vessel"), Label(3, "cell")))
GRID = Grid((9, 8, 7), np.diag([1.0, 1.0, 2.0, 1.0]), "um")
WHOLE = Box.whole(GRID.shape)
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
strokes = st.builds(
    Stroke,
    st.sampled_from((0, 1, 3)),
    st.floats(0, 5),
    st.lists(st.tuples(*(st.integers(0, n - 1) for n in GRID.shape)), min_size=1, max_size=3).map(tuple),
)


def corrected(store: VolumeStore, place: str, labels: np.ndarray) -> Correction:
    memory = MemoryStore()
    memory.put("mask", Volume(labels, GRID))
    return Correction(store, ShownMask(memory.open("mask"), TABLE, WHOLE), place, now=lambda: NOON)


def some_labels() -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 1, 3], np.uint8), GRID.shape)


@pytest.fixture
def correction(tmp_path: Path) -> Iterator[Correction]:
    correction = corrected(NiftiStore(), str(tmp_path / "corrected.nii"), some_labels())
    yield correction
    correction.close()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(strokes, st.booleans()), max_size=5), st.integers(0, 6))
def test_strokes_and_undo_are_those_of_an_array_in_memory(done: list[tuple[Stroke, bool]], undone: int) -> None:
    first = some_labels()
    correction = corrected(MemoryStore(), "copy", first)
    states = [(first, -1)]  # of each stroke, and its value
    for stroke, continues in done:
        box, painted = stroke.voxels(GRID, TABLE)
        after = states[-1][0].copy()
        after[box.slices][painted] = stroke.value
        correction.paint(stroke, continues=continues)
        if continues and states[-1][1] == stroke.value:
            states.pop()
        states.append((after, stroke.value))
    for _ in range(undone):
        assert correction.undo() == (len(states) > 1)
        states = states[: max(1, len(states) - 1)]
    now = states[-1][0]
    np.testing.assert_array_equal(correction.read(WHOLE)[0], now)
    report = correction.report()
    assert report["voxels"] == np.count_nonzero(now != first)
    for label in report["labels"]:
        value = label["value"]
        assert label["added"] == np.count_nonzero((now == value) & (first != value))
        assert label["removed"] == np.count_nonzero((now != value) & (first == value))
        assert label["strokes"] == sum(painted == value for _, painted in states)
    assert sum(label["added"] for label in report["labels"]) == report["voxels"]


def test_the_report_names_labels_and_times(correction: Correction) -> None:
    assert correction.report() == {"voxels": 0, "labels": []}
    voxel = tuple(np.argwhere(some_labels() == 3)[0].tolist())
    correction.paint(Stroke(0, 0.0, (voxel,)))
    time = "2026-01-02T12:00:00+00:00"
    assert correction.report()["labels"] == [
        {"value": 0, "name": "background", "added": 1, "removed": 0, "strokes": 1, "time": time},
        {"value": 3, "name": "cell", "added": 0, "removed": 1, "strokes": 0, "time": None},
    ]


def test_a_refused_stroke_changes_nothing(correction: Correction) -> None:
    with pytest.raises(UsageError):
        correction.paint(Stroke(2, 1.0, ((0, 0, 0),)))
    np.testing.assert_array_equal(correction.read(WHOLE)[0], some_labels())
    assert not correction.undo()


def test_a_closed_correction_says_so(correction: Correction) -> None:
    correction.close()
    with pytest.raises(ValueError, match="closed"):
        correction.paint(Stroke(1, 1.0, ((0, 0, 0),)))


def test_undo_keeps_a_bounded_number_of_steps(correction: Correction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNDO_STEPS", 3)
    for x in range(5):
        correction.paint(Stroke(1, 0.0, ((x, 0, 0),)))
    assert [correction.undo() for _ in range(4)] == [True, True, True, False]
    monkeypatch.setattr(module, "_UNDO_BYTES", 0)
    correction.paint(Stroke(1, 0.0, ((0, 0, 0),)))
    assert not correction.undo()


def test_a_stroke_takes_the_memory_of_its_box(tmp_path: Path) -> None:
    grid = Grid((400, 400, 400), np.eye(4))
    with NiftiStore().create(str(tmp_path / "mask.nii"), grid, np.dtype(np.uint8)) as sink:
        sink.commit()
    with NiftiStore().open(str(tmp_path / "mask.nii")) as mask:
        shown = ShownMask(mask, TABLE, Box.whole(grid.shape))
        tracemalloc.start()
        try:
            correction = Correction(NiftiStore(), shown, str(tmp_path / "corrected.nii"))
            correction.paint(Stroke(1, 5.0, ((200, 200, 200),)))
            assert correction.report()["voxels"] == 515
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            correction.close()
    assert peak < 40 * 2**20  # of the 61 MiB that the mask has

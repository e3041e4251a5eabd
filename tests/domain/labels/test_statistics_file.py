"""Statistics are the same as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from voxport.domain.errors import UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.statistics import LabelStatistics, StatisticsAccumulator
from voxport.domain.labels.statistics_file import check_statistics_name, statistics_bytes
from voxport.domain.report import statistics_mapping

from tests.services.conftest import make_grid, noise

GRID = make_grid((6, 5, 4), (0.5, 1.0, 2.0), "um")


@pytest.fixture
def statistics() -> tuple[LabelStatistics, ...]:
    """Of two labels over two channels; the second label, whose name holds a comma, is empty."""
    table = LabelTable((Label(1, "vessel"), Label(7, 'soma, "large"')))
    found = StatisticsAccumulator(GRID, table, 2, 0)
    labels = (noise(GRID.shape) > 0.7).astype(np.uint8)
    found.add(Box.whole(GRID.shape), labels, list(noise((2, *GRID.shape), seed=1)))
    return found.result()


def typed(text: str) -> Any:
    """A cell as what it says."""
    return {"": None, "True": True, "False": False}.get(text, text)


def test_json_says_what_was_measured(statistics: tuple[LabelStatistics, ...]) -> None:
    data = json.loads(statistics_bytes("folder/s.json", statistics, GRID))
    assert data == json.loads(json.dumps(statistics_mapping(statistics, GRID)))
    assert (data["unit"], data["voxel_volume"]) == ("um", 1.0)
    vessel, soma = data["labels"]
    assert (vessel["value"], vessel["name"], vessel["voxels"]) == (1, "vessel", statistics[0].voxels)
    assert vessel["voxels"] > 0
    assert vessel["bounding_box"] == {"start": [0, 0, 0], "stop": [6, 5, 4]}
    assert len(vessel["channels"]) == 2
    assert (soma["voxels"], soma["bounding_box"], soma["centroid_world"]) == (0, None, None)
    assert soma["channels"][0]["mean"] is None


def test_csv_has_the_values_of_json(statistics: tuple[LabelStatistics, ...]) -> None:
    labels = json.loads(statistics_bytes("s.json", statistics, GRID))["labels"]
    rows = list(csv.DictReader(io.StringIO(statistics_bytes("s.csv", statistics, GRID).decode())))
    assert len(rows) == len(labels)
    for row, label in zip(rows, labels, strict=True):
        cells = {name: typed(text) for name, text in row.items()}
        assert cells.pop("unit") == "um"
        box = label["bounding_box"] or {"start": [None] * 3, "stop": [None] * 3}
        expected = {name: label[name] for name in ("value", "name", "voxels", "volume", "components", "touches_border")}
        for i, axis in enumerate("xyz"):
            expected |= {f"box_start_{axis}": box["start"][i], f"box_stop_{axis}": box["stop"][i]}
            for frame in ("voxel", "world"):
                centroid = label[f"centroid_{frame}"]
                expected[f"centroid_{frame}_{axis}"] = None if centroid is None else centroid[i]
        for i, channel in enumerate(label["channels"]):
            expected |= {f"channel{i}_{name}": value for name, value in channel.items()}
        assert cells == {
            name: value if value is None or isinstance(value, bool) else str(value) for name, value in expected.items()
        }


def test_no_labels_give_an_empty_table_and_an_empty_list() -> None:
    assert statistics_bytes("s.csv", (), GRID) == b"value\n"
    assert json.loads(statistics_bytes("s.json", (), GRID))["labels"] == []


@pytest.mark.parametrize("name", ["s.json", "a.b/s.csv"])
def test_two_kinds_of_names_are_known(name: str) -> None:
    check_statistics_name(name)


@pytest.mark.parametrize("name", ["s.txt", "s", "s.json.gz", "json"])
def test_any_other_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=r"statistics: expected a name in \.json or \.csv"):
        check_statistics_name(name)
    with pytest.raises(UsageError):
        statistics_bytes(name, (), GRID)

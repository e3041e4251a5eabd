"""Label statistics as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ..errors import UsageError
from ..geometry.grid import Grid
from ..report import statistics_mapping
from .ranking import Uncertainty
from .statistics import LabelStatistics


def check_statistics_name(reference: str) -> None:
    """UsageError unless the name ends in .json or .csv."""
    suffix = PurePath(reference).suffix
    if suffix not in (".json", ".csv"):
        raise UsageError("statistics", expected="a name in .json or .csv", got=reference, do="rename it")


def statistics_bytes(
    reference: str, statistics: Sequence[LabelStatistics], grid: Grid, uncertainty: Uncertainty | None = None
) -> bytes:
    """The file's bytes, in the format that its name asks for; ``uncertainty`` is in JSON only.

    Raises UsageError for any other name.
    """
    check_statistics_name(reference)
    data = statistics_mapping(statistics, grid, uncertainty)
    if reference.endswith(".json"):
        return (json.dumps(data, indent=2) + "\n").encode()
    return table_bytes(statistics_rows(data))


def table_bytes(rows: Sequence[Mapping[str, Any]], first: str = "value") -> bytes:
    """Rows as CSV, with the columns of all of them; only the column ``first`` where there are none."""
    text = io.StringIO()
    columns = dict.fromkeys(column for row in rows for column in row) or {first: None}
    table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    # a file's name may hold bytes that are no text
    return text.getvalue().encode(errors="surrogateescape")


def statistics_rows(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a label from what ``statistics_mapping`` gave. Raises KeyError or TypeError for anything else."""
    return [_row(label, statistics["unit"]) for label in statistics["labels"]]


def _row(label: Mapping[str, Any], unit: str) -> dict[str, Any]:
    box = label["bounding_box"]
    row: dict[str, Any] = {name: label[name] for name in ("value", "name", "voxels", "volume")}
    row |= {"unit": unit, "components": label["components"], "touches_border": label["touches_border"]}
    for i, axis in enumerate("xyz"):
        row[f"box_start_{axis}"] = None if box is None else box["start"][i]
        row[f"box_stop_{axis}"] = None if box is None else box["stop"][i]
        row[f"centroid_voxel_{axis}"] = None if label["centroid_voxel"] is None else label["centroid_voxel"][i]
        row[f"centroid_world_{axis}"] = None if label["centroid_world"] is None else label["centroid_world"][i]
    for i, channel in enumerate(label["channels"]):
        row |= {f"channel{i}_{name}": value for name, value in channel.items()}
    return row

"""Label tables are read by others: BIDS' TSV by csv, ITK-SNAP's by its own rule."""

from __future__ import annotations

import csv
import io
import re

import pytest
from voxport.domain.errors import UsageError
from voxport.domain.labels.label_file import label_file_bytes
from voxport.domain.labels.label_map import Label, LabelTable

TABLE = LabelTable((Label(1, "vessel, large", "#ff0080"), Label(300, 'a\t"b"\nc é', "#00a000")))


def test_a_tsv_has_a_row_for_each_label() -> None:
    text = label_file_bytes("folder/labels.tsv", TABLE).decode()
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows == [
        {"index": "1", "name": "vessel, large", "color": "#ff0080"},
        {"index": "300", "name": 'a "b" c é', "color": "#00a000"},
    ]


@pytest.mark.parametrize("name", ["labels.txt", "labels.label"])
def test_itk_snap_reads_seven_numbers_and_a_quoted_name(name: str) -> None:
    text = label_file_bytes(name, TABLE).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = []
    for line in lines:
        match = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d)\s+(\d)\s+"([^"]*)"', line)
        assert match is not None, line
        found.append((*map(float, match.groups()[:7]), match[8]))
    assert found == [
        (0, 0, 0, 0, 0, 0, 0, "Clear Label"),
        (1, 255, 0, 128, 1, 1, 1, "vessel, large"),
        (300, 0, 160, 0, 1, 1, 1, "a 'b' c é"),
    ]


@pytest.mark.parametrize("name", ["labels", "labels.csv", "tsv"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"label_table: expected a name in \.tsv \(BIDS\), \.txt or \.label"):
        label_file_bytes(name, TABLE)

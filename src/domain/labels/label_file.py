"""Label tables as files: BIDS' TSV and ITK-SNAP's label descriptions."""

from __future__ import annotations

from pathlib import PurePath

from ..errors import UsageError
from .label_map import LabelTable

_BIDS, _ITK_SNAP = ".tsv", (".txt", ".label")
_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
"""


def check_label_file_name(reference: str) -> None:
    """Raise UsageError unless the name ends in .tsv, .txt or .label."""
    suffix = PurePath(reference).suffix
    if suffix not in (_BIDS, *_ITK_SNAP):
        expected = "a name in .tsv (BIDS), .txt or .label (ITK-SNAP)"
        raise UsageError("label_table", expected=expected, got=reference, do="rename it")


def label_file_bytes(reference: str, table: LabelTable) -> bytes:
    """Return the file's bytes, in the format that its name asks for. Raises UsageError for any other name."""
    check_label_file_name(reference)
    text = _bids(table) if reference.endswith(_BIDS) else _itk_snap(table)
    return text.encode()


def _bids(table: LabelTable) -> str:
    """Return ``index``, ``name`` and ``color`` of each label, as in BIDS' ``dseg.tsv``."""
    rows = [("index", "name", "color")]
    rows += [(str(label.value), _one_line(label.name), label.colour) for label in table.labels]
    return "".join("\t".join(row) + "\n" for row in rows)


def _itk_snap(table: LabelTable) -> str:
    """Return value, colour, opacity, visibility and name of each label; 0 is clear."""
    rows = [(0, (0, 0, 0), 0, "Clear Label"), *((label.value, label.rgb, 1, label.name) for label in table.labels)]
    lines = []
    for value, rgb, shown, name in rows:
        quoted = _one_line(name).replace('"', "'")  # the format has no way to write a quote
        lines.append(f'{value:5d}  {"".join(f"{part:5d}" for part in rgb)}  {shown:7d}  {shown}  {shown}    "{quoted}"')
    return _HEAD + "\n".join(lines) + "\n"


def _one_line(name: str) -> str:
    return " ".join(name.split())

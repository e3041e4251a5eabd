"""Errors name fields; the command line alone names its flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
# builds the command lines of reports, which are data
EXEMPT = {"services/segmentation/report.py"}
LAYERS = ("domain", "ports", "services", "adapters", "contract", "client", "testing")
MODULES = sorted(
    str(path.relative_to(SRC)) for layer in LAYERS for path in (SRC / layer).rglob("*.py") if path.is_file()
)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in EXEMPT])
def test_no_text_below_the_entry_points_names_a_flag(module: str) -> None:
    texts = [
        node.value
        for node in ast.walk(ast.parse((SRC / module).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if re.search(r"(?<![\w-])--[a-z][a-z-]+", text)] == []

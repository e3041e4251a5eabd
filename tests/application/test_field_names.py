"""Errors name fields; the command line alone names its flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from voxport.entrypoints.cli.main import app

SRC = Path(__file__).resolve().parents[2] / "src"
# builds the command lines of reports, which are data
EXEMPT = {"services/segmentation/report.py"}
LAYERS = ("domain", "ports", "services", "adapters", "contract", "client", "testing")


def _flags(command: Any) -> set[str]:
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(_flags(inner) for inner in getattr(command, "commands", {}).values()))


FLAGS = _flags(typer.main.get_command(app))
MODULES = sorted(
    str(path.relative_to(SRC)) for layer in LAYERS for path in (SRC / layer).rglob("*.py") if path.is_file()
)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in EXEMPT])
def test_no_text_below_the_entry_points_names_a_flag(module: str) -> None:
    texts = [
        node.value
        for node in ast.walk(ast.parse((SRC / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    # commands of other programs have flags of their own
    assert {flag for text in texts for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)} & FLAGS == set()

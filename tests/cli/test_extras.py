"""A command whose extra is not installed says which one it needs."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main
from voxport.domain.errors import UsageError
from voxport.entrypoints.cli import serving
from voxport.entrypoints.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        ("serve", "bentoml", "serving"),
        ("up", "bentoml", "serving"),
        ("up", "gradio", "demo"),
        ("worker", "dbos", "serving"),
        ("jobs list", "dbos", "serving"),
        ("batch . -o out", "dbos", "serving"),
        ("demo", "gradio", "demo"),
    ],
)
def test_the_extra_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch, arguments: str, missing: str, extra: str
) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == missing else object())
    command: Any = typer.main.get_command(app)
    with pytest.raises(UsageError, match=rf"expected the package {missing}, .*pip install 'voxport\[{extra}\]'"):
        command.main(args=arguments.split(), standalone_mode=False)

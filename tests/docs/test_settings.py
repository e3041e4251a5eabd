"""docs/settings.md names every setting, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from voxport.settings import Settings, load_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(VOXPORT_[A-Z_]+)` \|.*\| (.*?) ?\|$", PAGE, flags=re.MULTILINE))
# read by other means than the settings
APART = {"VOXPORT_SECRETS_DIR", "VOXPORT_SETTINGS_FILE", "VOXPORT_DEBUG"}


def settings(model: type[BaseModel], prefix: str = "VOXPORT_") -> Iterator[tuple[str, Any]]:
    """Every variable and its default."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{variable}__")
        else:
            yield variable, field.get_default(call_default_factory=True, validated_data={})


def test_every_setting_is_on_the_page_and_nothing_else() -> None:
    assert set(ROWS) == {variable for variable, _ in settings(Settings)} | APART


@pytest.mark.parametrize(
    ("variable", "default"),
    [(name, value) for name, value in settings(Settings) if isinstance(value, str | int | float)],
)
def test_plain_defaults_are_as_the_page_says(variable: str, default: str | float) -> None:
    shown = ROWS[variable].split()[0].strip("`")
    if ROWS[variable].endswith("in the user's data folder"):
        assert str(default).endswith(f"/{shown}")
        return
    assert type(default)(yaml.safe_load(shown)) == default


def test_the_file_on_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path / "settings.yaml"
    path.write_text(block, encoding="utf-8")
    monkeypatch.setenv("VOXPORT_SETTINGS_FILE", str(path))
    read = load_settings()
    assert (read.threads, read.serving.slots, read.serving.time_limit_seconds) == (4, 2, 1800)
    assert read.onnx.provider_options["CUDAExecutionProvider"] == {"device_id": "1"}

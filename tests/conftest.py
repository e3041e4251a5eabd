"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import voxport.adapters  # noqa: F401 - before any test imports ONNX Runtime, which it silences

pytest_plugins = ["voxport.testing.plugin"]
# before any test module imports a suite
pytest.register_assert_rewrite("voxport.testing")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes; tests that ask for it are marked ``real_data``."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}")
    return folder

"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("voxport.testing")

settings.register_profile(
    "voxport",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("voxport")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes; tests that ask for it are marked ``real_data``."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}")
    return folder

"""Pytest plugin for the contract suites: add ``pytest_plugins = ["voxport.testing.plugin"]`` to conftest.py."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - the signature is pytest's
    """Rewrite the suites' assertions, and load a hypothesis profile without deadlines."""
    pytest.register_assert_rewrite("voxport.testing")
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "voxport",
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    settings.load_profile("voxport")

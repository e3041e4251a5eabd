"""A pytest plugin for users of the contract suites: ``pytest_plugins = ["voxport.testing.plugin"]`` in conftest.py."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - the signature is pytest's
    """Show what failing contracts compared, and load a hypothesis profile without deadlines."""
    pytest.register_assert_rewrite("voxport.testing")
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "voxport",
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    settings.load_profile("voxport")

"""Fixtures of the tests of the DICOM network."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """Collect what pynetdicom leaves behind, sockets above all, where the test that made it may ignore it."""
    yield
    gc.collect()

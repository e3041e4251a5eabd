"""A Postgres server for the tests of jobs, where its programs are installed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Postgres, postgres_folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if postgres_folder() is None:
        pytest.skip("no Postgres programs here")
    # not below pytest's own folder, which another user may not enter
    with tempfile.TemporaryDirectory(prefix="voxport-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "server")
        yield server
        server.stop()

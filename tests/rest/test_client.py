"""The client against a server that is really started: the same tests as in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from voxport.client import Client

from tests.client.conftest import no_key  # noqa: F401 - a fixture
from tests.client.test_contract import *  # noqa: F403 - the tests

from .serving import Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of that server."""
    with Client(server.url) as client:
        yield client

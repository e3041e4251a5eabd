"""Resources with set numbers keep the contract."""

from __future__ import annotations

from voxport.ports.resources import Resources
from voxport.testing.resources import FixedResources, ResourcesContract


class TestFixedResources(ResourcesContract):
    def make_resources(self) -> Resources:
        return FixedResources(3, available=10, resident=7)

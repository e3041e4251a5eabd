"""skan's paths by the contract."""

from __future__ import annotations

from voxport.adapters.tracers.skan import SkanTracer
from voxport.ports.tracers import LineTracer
from voxport.testing.tracers import LineTracerContract


class TestSkanTracer(LineTracerContract):
    def make_tracer(self) -> LineTracer:
        return SkanTracer()

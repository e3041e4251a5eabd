"""dependency-injector without its wiring of functions, which imports every web framework that is installed.

FastAPI takes as long to import as all else that a command needs: 0.15 to 0.2 s on two cores. Nothing is wired here.
A program that wires functions gets the real module: when it imports it, and when it calls ``Container.wire``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

_CONTAINERS, _PROVIDERS = "dependency_injector.containers", "dependency_injector.providers"
_WIRING = "dependency_injector.wiring"


def _late_wiring() -> ModuleType:
    """A module whose ``wire`` and ``unwire`` import the real one when they are called."""

    def late(name: str) -> Callable[..., Any]:
        return lambda *given, **named: getattr(import_module(_WIRING), name)(*given, **named)

    module = ModuleType(_WIRING)
    module.__dict__.update(wire=late("wire"), unwire=late("unwire"))
    return module


def _imported() -> tuple[ModuleType, ModuleType]:
    """The containers and providers modules, imported beside a stand-in for wiring unless they are loaded already."""
    if _WIRING in sys.modules or _CONTAINERS in sys.modules:
        return import_module(_CONTAINERS), import_module(_PROVIDERS)
    sys.modules[_WIRING] = _late_wiring()
    try:
        return import_module(_CONTAINERS), import_module(_PROVIDERS)
    finally:
        del sys.modules[_WIRING]


if TYPE_CHECKING:
    from dependency_injector import containers, providers
else:
    containers, providers = _imported()

__all__ = ["containers", "providers"]

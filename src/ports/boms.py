"""Port for bills of materials."""

from __future__ import annotations

from typing import Protocol

from .model import Model


class BomWriter(Protocol):
    """Lists what something is made of, for programs that look for known flaws and licences."""

    def model_bom(self, model: Model) -> bytes:
        """Return the bill of materials of a model file, from its card; the same bytes each time.

        Raises:
            NotInstalledError: a package is missing.
        """

    def installation_bom(self) -> bytes:
        """Return the bill of materials of what this process runs in; the same bytes each time.

        Raises:
            NotInstalledError: a package is missing.
        """

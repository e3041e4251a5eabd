"""Port for a server that receives DICOM objects: an archive (PACS)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class DicomPeer(Protocol):
    """A server that stores DICOM objects. Safe for several threads."""

    def has(self, file: Path) -> bool | None:
        """Whether the server has the object of this file, by its UIDs; None where it does not answer such questions.

        Raises:
            ConnectionError: it cannot be reached.
        """

    def send(self, file: Path) -> None:
        """Send the object of a file; once this returns, the server has stored it.

        Raises:
            ConnectionError: the server cannot be reached, or has not stored it.
        """

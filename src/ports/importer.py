"""Port for the import of networks from the files of other frameworks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..domain.cards.model_card import ModelCard
from ..domain.errors import UsageError
from .exporter import Checkpoint


@dataclass(frozen=True)
class ImportChoices:
    """What a user may choose of a source that holds several networks.

    ``configuration``, ``folds`` and ``checkpoint`` are nnU-Net's words; None takes the only one, or all folds.
    ``mirroring``: keep the source's test-time mirroring. ``output``: name or index of the output with the logits.
    ``name`` and ``version`` are those of the card; None takes the source's. ``card`` is the user's own, which a source
    without one needs.
    """

    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    checkpoint: Literal["final", "best"] = "final"
    mirroring: bool = True
    output: str | None = None
    name: str | None = None
    version: str | None = None
    card: ModelCard | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """An input ``(N, C, ., ., .)`` of the network, in its own axes, and the output that its authors state for it.

    ``finish`` turns what the network gives into what they state, e.g. a sigmoid. ``beyond``: the share of voxels that
    may differ by more than ``absolute + relative * |output|``.
    """

    name: str
    input: NDArray[np.float32]
    output: NDArray[np.float32]
    relative: float
    absolute: float
    beyond: float = 0.0
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.asarray


@dataclass(frozen=True)
class Imported:
    """What a source holds: the card, the network (a checkpoint, or an ONNX file), and the authors' examples.

    ``missing`` are fields of the card that the source does not state, e.g. ``licence``; ``notes`` are for the user.
    """

    card: ModelCard
    network: Checkpoint | Path
    examples: tuple[Example, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ModelImporter(Protocol):
    """Reads the networks of one framework. Runs nothing that a source brings; unpickles no objects of it."""

    @property
    def name(self) -> str:
        """The framework's name, e.g. ``nnunet``."""

    def recognises(self, source: Path) -> bool:
        """Return whether a file or folder looks like one of this framework's; never raises."""

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        """Read a source; ``folder`` is empty, and holds what an archive is unpacked to.

        Raises:
            ModelError: the source is damaged, or says what a card cannot say; names each such thing.
            UsageError: a choice that the source does not have, or one that must be made.
        """

    def segment(
        self,
        source: Path,
        choices: ImportChoices,  # noqa: ARG002 - for frameworks with an inference of their own
        inputs: Sequence[Path],  # noqa: ARG002
        mask: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
    ) -> tuple[str, str]:
        """Segment NIfTI files, one a channel, with the framework itself; return its name and version.

        Writes a NIfTI label map with the card's label values on the inputs' grid. Runs what the source brings.

        Raises:
            UsageError: the framework is not installed, or has no inference of its own, as here.
            ModelError: it fails.
        """
        do = "leave the comparison out: the certificate compares the networks"
        raise UsageError("check", expected="a framework with an inference of its own", got=source.name, do=do)

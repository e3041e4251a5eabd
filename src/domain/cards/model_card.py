"""The model card: a network's input and output as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import ModelError
from ..inference.patches import Tiling
from ..intensity import Step
from ..labels.label_map import Output
from ..parity import Certificate

Axes = Literal["XYZ", "ZYX"]


@dataclass(frozen=True)
class Channel:
    """A network channel, and the channel of the case (input file or 4-D channel) that it reads."""

    name: str
    source: int


@dataclass(frozen=True)
class Input:
    """Input of the network.

    ``axes`` is the axis order of the network's arrays. Volumes are reoriented to ``orientation`` and resampled to
    ``spacing`` (in ``spacing_unit``) before inference; None keeps them as stored.
    """

    channels: tuple[Channel, ...]
    axes: Axes = "XYZ"
    orientation: str | None = "RAS"
    spacing: tuple[float, float, float] | None = None
    spacing_unit: str | None = None
    intensity: tuple[Step, ...] = ()

    @property
    def source_count(self) -> int:
        """Number of channels that a case must have."""
        return 1 + max(channel.source for channel in self.channels)


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a network except its weights."""

    name: str
    version: str
    description: str
    licence: str
    intended_use: str
    input: Input
    tiling: Tiling
    output: Output
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parity: Certificate | None = None

    @property
    def reference(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"

    def answers_to(self, reference: str) -> bool:
        """Return whether a reference ``name`` or ``name:version`` means this card."""
        return reference in (self.name, self.reference)

    @property
    def slug(self) -> str:
        """``name-version``, for file names."""
        return f"{self.name}-{self.version}"

    @property
    def sort_key(self) -> tuple[str, tuple[tuple[int, int, str], ...]]:
        """Sort key by name and semantic version: 1.10.0 after 1.9.0, a pre-release before its release."""
        parts = re.findall(r"\d+|[A-Za-z]+|-", self.version.split("+")[0])
        key = [(1, int(p), "") if p.isdigit() else (-1, 0, p) for p in parts]
        return self.name, (*key, (0, 0, ""))

    def with_parity(self, certificate: Certificate | None) -> ModelCard:
        """Return a copy with another certificate."""
        return replace(self, parity=certificate)

    def check_weights(self, weights_sha256: str, subject: str) -> None:
        """Raise ModelError if the certificate is for other weights."""
        if self.parity is not None and self.parity.weights_sha256 != weights_sha256:
            raise ModelError(
                subject,
                expected=f"the certified weights (sha256 {self.parity.weights_sha256[:12]}...)",
                got=f"sha256 {weights_sha256[:12]}...",
                do="get the file again, or certify it anew with voxport verify, a `card` without parity, and `against`",
            )

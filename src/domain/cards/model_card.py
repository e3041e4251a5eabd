"""The model card: a network's input and output as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from ..errors import ModelError
from ..inference.patches import Tiling
from ..intensity import Step
from ..labels.label_map import Output
from ..parity import Certificate

Axes = Literal["XYZ", "ZYX"]
T = TypeVar("T")


@dataclass(frozen=True)
class Channel:
    """A network channel, and the channel of the case (input file or 4-D channel) that it reads.

    ``intensity`` replaces the input's steps; None keeps them.
    """

    name: str
    source: int
    intensity: tuple[Step, ...] | None = None


@dataclass(frozen=True)
class Crop:
    """The box of the voxels that any channel has above ``threshold``, or other than zero, and ``margin`` voxels more.

    What lies outside the box is background.
    """

    to: Literal["nonzero", "above"]
    threshold: float = 0.0
    margin: int = 0


@dataclass(frozen=True)
class ResamplingRule:
    """How volumes are brought to the model's spacing.

    ``order`` is that of the spline, 1 or 3. ``separate_axis`` auto takes the nearest voxel along an axis whose spacing
    is more than three times that of the others, as nnU-Net does. ``when``: before or after the intensity steps.
    ``align``: what the two grids have in common, their centre, their extent (as in nnU-Net), or their first voxel (as
    in MONAI).
    """

    order: Literal[1, 3] = 1
    separate_axis: Literal["auto"] | None = None
    when: Literal["after_intensity", "before_intensity"] = "after_intensity"
    align: Literal["centre", "extent", "first"] = "centre"


@dataclass(frozen=True)
class Input:
    """Input of the network.

    ``axes`` is the axis order of the network's arrays. Volumes are cropped, reoriented to ``orientation`` and resampled
    to ``spacing`` (in ``spacing_unit``) before inference; None keeps them as stored, all of them or along one axis.
    """

    channels: tuple[Channel, ...]
    axes: Axes = "XYZ"
    orientation: str | None = "RAS"
    spacing: tuple[float | None, float | None, float | None] | None = None
    spacing_unit: str | None = None
    intensity: tuple[Step, ...] = ()
    crop: Crop | None = None
    resampling: ResamplingRule = ResamplingRule()

    def in_network_order(self, edges: Iterable[T]) -> tuple[T, T, T]:
        """Return one value for each axis (x, y, z) in the order of the network's axes."""
        x, y, z = edges
        return (z, y, x) if self.axes == "ZYX" else (x, y, z)

    def steps(self, channel: Channel) -> tuple[Step, ...]:
        """Return the intensity steps of a channel."""
        return self.intensity if channel.intensity is None else channel.intensity

    @property
    def source_count(self) -> int:
        """Number of channels that a case must have."""
        return 1 + max(channel.source for channel in self.channels)


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a network except its weights.

    ``measure``: what `segment` measures of a mask besides its statistics: lengths and radii of tubes, as of vessels.
    """

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
    authors: tuple[str, ...] = ()
    citation: str = ""
    measure: Literal["tubular"] | None = None

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

    @property
    def slice_axis(self) -> int:
        """The axis (0, 1, 2 for x, y, z) across the slices of a network for 2-D images: where the patch is 1.

        Raises:
            ModelError: no such axis, or several.
        """
        thin = [axis for axis, edge in enumerate(self.tiling.patch) if edge == 1]
        if len(thin) != 1:
            raise ModelError(
                self.reference,
                expected="a patch with one edge of 1 in the card, across the slices of a network for 2-D images",
                got=str(list(self.tiling.patch)),
                do="set that edge of the patch to 1, e.g. [256, 256, 1]",
            )
        return thin[0]

    def check_weights(self, weights_sha256: str, subject: str) -> None:
        """Raise ModelError if the certificate is for other weights."""
        if self.parity is not None and self.parity.weights_sha256 != weights_sha256:
            raise ModelError(
                subject,
                expected=f"the certified weights (sha256 {self.parity.weights_sha256[:12]}...)",
                got=f"sha256 {weights_sha256[:12]}...",
                do="get the file again, or certify it anew with voxport verify, a `card` without parity, and `against`",
            )

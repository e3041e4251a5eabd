"""What nnU-Net's plans and dataset files say of one configuration, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ....domain.errors import ModelError
from .results import Results

T = TypeVar("T")
_AGAIN = "take the files that nnU-Net wrote"


@dataclass(frozen=True)
class Plans:
    """One configuration, with what it inherits; axes are nnU-Net's, (z, y, x) of a volume after ``transpose``."""

    configuration: str
    values: Mapping[str, Any]
    whole: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @classmethod
    def of(cls, results: Results, configuration: str) -> Plans:
        """Read a configuration. Raises ModelError for one that is absent, or that needs another one's result."""
        configurations = results.plans.get("configurations")
        if not isinstance(configurations, Mapping):
            raise wrong("plans.json", "configurations", "none")
        values = _inherited(configurations, configuration, ())
        if values.get("previous_stage") is not None:
            raise ModelError(
                configuration,
                expected="a configuration that segments by itself",
                got=f"a cascade, which takes the segmentation of {values['previous_stage']} as input",
                do="import that configuration, or 3d_fullres",
            )
        return cls(configuration, values, results.plans, results.dataset)

    @property
    def flat(self) -> bool:
        """Whether the network is for 2-D slices."""
        return len(self.patch) == 2

    @property
    def patch(self) -> tuple[int, ...]:
        """Edges of the patch, two or three."""
        return self.of_each("patch_size", int)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing of the network's axes, two or three numbers."""
        lengths = self.of_each("spacing", float)
        if len(lengths) != len(self.patch):
            raise wrong("spacing", f"{len(self.patch)} numbers, as patch_size has", lengths)
        return lengths

    @property
    def transpose(self) -> tuple[int, ...]:
        """Axis of the stored array (z, y, x) for each axis of the network's array."""
        axes = self.whole.get("transpose_forward", [0, 1, 2])
        if not isinstance(axes, list) or sorted(axes, key=str) != [0, 1, 2]:
            raise wrong("transpose_forward", "the axes 0, 1 and 2", axes)
        return tuple(axes)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the input channels."""
        names = self.dataset.get("channel_names", self.dataset.get("modality"))
        if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(len(names)))) or not names:
            raise wrong("channel_names", "channels numbered from 0", names)
        return tuple(str(names[str(number)]) or f"channel {number}" for number in range(len(names)))

    def of_each(self, key: str, kind: Callable[[Any], T]) -> tuple[T, ...]:
        """Return a list of the configuration, one entry an axis of the network."""
        values = self.values.get(key)
        if not isinstance(values, Sequence) or len(values) not in (2, 3) or not all(_is_length(v) for v in values):
            raise wrong(key, "two or three positive numbers", values)
        return tuple(kind(value) for value in values)

    def of_channels(self, key: str) -> tuple[Any, ...]:
        """Return a list of the configuration, one entry a channel."""
        values = self.values.get(key)
        if not isinstance(values, Sequence) or len(values) != len(self.channels):
            raise wrong(key, f"{len(self.channels)} values, one for each channel", values)
        return tuple(values)

    def intensities(self, channel: int) -> Mapping[str, Any]:
        """Return the statistics of a channel's foreground in the training data."""
        keys = "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"
        found = next((self.whole[key] for key in keys if key in self.whole), None)
        values = found.get(str(channel)) if isinstance(found, Mapping) else None
        if not isinstance(values, Mapping):
            raise wrong(keys[0], f"statistics of channel {channel}", found)
        return values


def wrong(key: str, expected: str, got: object) -> ModelError:
    """Return the error for a value of nnU-Net's files that cannot be used."""
    text = "none" if got is None else str(got)
    return ModelError(key, expected=expected, got=text if len(text) < 100 else f"{text[:100]}...", do=_AGAIN)


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _inherited(configurations: Mapping[str, Any], name: str, seen: tuple[str, ...]) -> Mapping[str, Any]:
    values = configurations.get(name)
    if not isinstance(values, Mapping) or name in seen:
        listed = ", ".join(map(str, configurations)) or "none"
        raise wrong("configuration", f"one of {listed}", f"{name}, inherited in a circle" if name in seen else name)
    parent = values.get("inherits_from")
    if not isinstance(parent, str | None):
        raise wrong("inherits_from", "the name of a configuration", parent)
    return values if parent is None else {**_inherited(configurations, parent, (*seen, name)), **values}

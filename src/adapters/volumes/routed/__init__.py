"""One volume store over several: content chooses the store, then the name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ....domain.errors import InputError, OutputError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.volume_names import VolumeNames
from ....ports.volume_store import VolumeSink, VolumeSource, VolumeStore
from .foreign import describe


class RoutedStore:
    """Volumes of several formats.

    Reading: the first store that recognises the content, else the store of the name's ending, else the store whose
    volumes may lie deeper in a folder, else the first store, which raises the error.
    Writing: the store of the name's ending.

    Args:
        stores: one a format, the commonest first.
    """

    def __init__(self, *stores: VolumeStore) -> None:
        self.stores = stores

    @property
    def names(self) -> VolumeNames:
        return VolumeNames(tuple(known for store in self.stores for known in store.names.formats))

    @property
    def max_voxels(self) -> int:
        return min(store.max_voxels for store in self.stores)

    def recognises(self, reference: str) -> bool:
        return any(store.recognises(reference) for store in self.stores)

    def places(self, reference: str) -> tuple[str, ...]:
        return (self._named(reference) or self.stores[0]).places(reference)

    def open(self, reference: str, reading: Reading | None = None) -> VolumeSource:
        store = next((store for store in self.stores if store.recognises(reference)), None)
        if store is None and (foreign := describe(reference)):
            first = self.names.formats[0].name
            expected = f"a volume in a format that is read, such as {first}"
            raise InputError(PurePath(reference).name, expected=expected, got=foreign[0], do=foreign[1])
        return (store or self._named(reference) or self._nested(reference) or self.stores[0]).open(reference, reading)

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> VolumeSink:
        store = self._named(reference)
        if store is None or store.names.ending(reference) not in self.names.writable:
            name = PurePath(reference)
            raise OutputError(
                name.name or reference,
                expected=f"a name in {self.names.writable_text}",
                got=name.suffix or "no suffix",
                do="name the output so",
            )
        return store.create(
            reference, grid, dtype, channels=channels, like=like, channel_names=channel_names, labels=labels
        )

    def _nested(self, reference: str) -> VolumeStore | None:
        """Return the store whose volumes may lie deeper in a folder, for a folder."""
        stores = [store for store in self.stores if any(known.is_nested for known in store.names.formats)]
        return stores[0] if stores and Path(reference).is_dir() else None

    def _named(self, reference: str) -> VolumeStore | None:
        """Return the store with the longest ending that matches the name."""
        found = max(self.stores, key=lambda store: len(store.names.ending(reference)))
        return found if found.names.ending(reference) else None


def format_of(store: VolumeStore, reference: str) -> str:
    """Return the name of the format of a stored volume, by content, then by name; empty for an unknown one."""
    stores = store.stores if isinstance(store, RoutedStore) else (store,)
    found = next((known for known in stores if known.recognises(reference)), store)
    formats = found.names.formats
    return found.names.format(reference) or (formats[0].name if formats and found is not store else "")

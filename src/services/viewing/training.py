"""Pairs of image and corrected mask in one folder, as nnU-Net and MONAI read them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.errors import OutputError
from ...domain.labels.label_map import LabelTable
from ...domain.volume_names import PACKED
from ...ports.artifacts import ArtifactWriter
from ...ports.locks import Locks
from ...ports.volume_store import VolumeStore
from ..segmentation.case import Case, replaced, slabs
from .volume_viewer import ShownMask

DATASET, _DATALIST, _LOCK = "dataset.json", "datalist.json", ".voxport.lock"
_LONGEST_NAME = 80


@dataclass(frozen=True)
class TrainingFolder:
    """A folder of cases for training.

    It has ``imagesTr/CASE_0000.nii.gz`` (a file a channel), ``labelsTr/CASE.nii.gz`` and ``dataset.json`` for nnU-Net,
    and ``datalist.json`` for MONAI.
    """

    folder: Path
    volumes: VolumeStore
    artifacts: ArtifactWriter
    locks: Locks

    def keep(self, name: str, case: Case, mask: ShownMask, channel_names: Sequence[str]) -> str:
        """Write image and mask of a case; return the case's name in the folder.

        The name ends in a hash of the volumes and their grid: the same case again replaces its mask, and another case
        of the same name stays apart. Values that are not finite become 0, as nnU-Net takes none; label values become
        1, 2, ..., as it asks for.

        Raises:
            OutputError: the folder cannot be written, or holds cases of other labels or channels.
        """
        key = f"{_safe(name)}_{_digest(case)}"
        values = sorted(mask.table.values)
        described: dict[str, Any] = {
            "channel_names": {str(i): name or f"channel {i + 1}" for i, name in enumerate(channel_names)},
            "labels": {"background": 0} | {mask.table.name_of(value): i + 1 for i, value in enumerate(values)},
        }
        try:
            with self.locks.hold(self.folder / _LOCK):
                self._check(described)
                for part in ("imagesTr", "labelsTr"):
                    (self.folder / part).mkdir(exist_ok=True)
                self._write(key, case, mask)
                self._list(described)
        except OSError as error:
            raise OutputError.cannot_write(str(self.folder), error) from None
        return key

    def _check(self, described: dict[str, Any]) -> None:
        place = self.folder / DATASET
        if not place.exists():
            return
        try:
            known = json.loads(place.read_text(encoding="utf-8"))
            labels, channels = known["labels"], len(known["channel_names"])
        except (ValueError, KeyError, TypeError, RecursionError):
            do = "name another folder, or delete this file"
            raise OutputError(str(place), expected="a data set of nnU-Net", got="something else", do=do) from None
        here = described["labels"], len(described["channel_names"])
        if here != (labels, channels):
            expected, got = (f"labels {a}, {b} channels" for a, b in ((labels, channels), here))
            do = "keep the cases of each model in a folder of its own"
            raise OutputError(str(self.folder), expected=expected, got=got, do=do)

    def _write(self, key: str, case: Case, mask: ShownMask) -> None:
        """Write the mask, and images that are not there yet; after an error, nothing is left of a new case."""
        images = self._images(key, case.channels)
        label = self.folder / "labelsTr" / f"{key}{PACKED}"
        new = [path for path in (label, *images) if not path.exists()]
        codes = _codes(mask.table)
        try:
            with ExitStack() as stack:
                like = case.sources[0]
                sink = stack.enter_context(self.volumes.create(str(label), case.grid, codes.dtype, like=like))
                for box in slabs(case.grid, mask.source.slowest_axis):
                    sink.write(box, codes[mask.source.read(box)[0]])
                sinks = [sink]
                for channel, path in enumerate(images):
                    if path not in new:
                        continue
                    dtype = _written(case.dtype_of(channel))
                    sink = stack.enter_context(self.volumes.create(str(path), case.grid, dtype, like=like))
                    for box in slabs(case.grid, like.slowest_axis):
                        sink.write(box, replaced(case.read_channel(channel, box), 0.0).astype(dtype, copy=False))
                    sinks.append(sink)
                for sink in sinks:
                    sink.commit()
        except BaseException:
            if label in new:
                for path in new:
                    path.unlink(missing_ok=True)
            raise

    def _images(self, key: str, channels: int) -> list[Path]:
        return [self.folder / "imagesTr" / f"{key}_{channel:04d}{PACKED}" for channel in range(channels)]

    def _list(self, described: dict[str, Any]) -> None:
        """Write both lists, of all cases that are there."""
        training = list(self._cases(len(described["channel_names"])))
        dataset = {**described, "numTraining": len(training), "file_ending": PACKED}
        for name, content in ((DATASET, dataset), (_DATALIST, {"training": training})):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            self.artifacts.write(str(self.folder / name), text.encode())

    def _cases(self, channels: int) -> Iterator[dict[str, Any]]:
        for label in sorted((self.folder / "labelsTr").glob(f"*{PACKED}")):
            images = self._images(label.name.removesuffix(PACKED), channels)
            if all(image.exists() for image in images):
                names = [image.relative_to(self.folder).as_posix() for image in images]
                image = names[0] if channels == 1 else names
                yield {"image": image, "label": label.relative_to(self.folder).as_posix()}


def _codes(table: LabelTable) -> NDArray[np.unsignedinteger[Any]]:
    """Return the value in the data set of each label value."""
    values = sorted(table.values)
    codes = np.zeros(max(values, default=0) + 1, np.min_scalar_type(len(values)))
    codes[values] = range(1, len(values) + 1)
    return codes


def _written(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if np.issubdtype(dtype, np.integer) else np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)


def _safe(name: str) -> str:
    """Return the letters, digits, ``-`` and ``_`` of a name."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_-")[:_LONGEST_NAME] or "case"


def _digest(case: Case) -> str:
    digest = hashlib.sha256(repr((case.grid.shape, case.grid.unit, case.channels)).encode())
    digest.update((case.grid.affine + 0.0).tobytes())
    for source in case.sources:
        digest.update(source.sha256().encode())
    return digest.hexdigest()[:12]

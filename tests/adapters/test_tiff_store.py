"""The TIFF store keeps the volume store's contract; here tifffile's own writer and ome-types are the witnesses."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import ome_types
import tifffile
from hypothesis import strategies as st
from voxport.adapters.volumes.tiff import TiffStore
from voxport.domain.geometry.grid import Grid, shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.strategies import DTYPES
from voxport.testing.volume_store import VolumeReadingContract, VolumeStoreContract

_OME_UNITS = {"mm": "mm", "um": "µm", "unknown": "reference frame"}


class _Files(VolumeReadingContract):
    suffix = ".tif"
    geometry = "spacing"

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return TiffStore()

    def new_reference(self) -> str:
        return str(self.folder / f"volume_{next(self.numbers)}{self.suffix}")

    def volumes(self, *, sheared: bool = False) -> st.SearchStrategy[Volume]:
        """Draw volumes that tifffile writes right: it drops axes of length 1."""
        return super().volumes(sheared=sheared).filter(lambda volume: min(volume.grid.shape) > 1)

    def place_foreign(self) -> str:
        reference = self.new_reference()
        Path(reference).write_bytes(b"not a volume" * 100)
        return reference


class TestOmeTiff(_Files, VolumeStoreContract):
    suffix = ".ome.tif"
    dtypes = tuple(name for name in DTYPES if name not in ("int64", "uint64"))
    keeps_channel_names = True
    keeps_labels = True
    options: ClassVar[dict[str, Any]] = {}

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        unit, grid = _OME_UNITS[volume.grid.unit], volume.grid
        x, y, z = map(float, grid.affine[:3, 3])
        planes = grid.shape[2] * volume.channels
        depths = [z + step * grid.spacing[2] for step in range(grid.shape[2])] * volume.channels
        about: dict[str, Any] = {"axes": "CZYX", "Plane": {"PositionX": [x] * planes, "PositionY": [y] * planes}}
        about["Plane"] |= {"PositionZ": depths} | {f"Position{letter}Unit": [unit] * planes for letter in "XYZ"}
        for letter, edge in zip("XYZ", grid.spacing, strict=True):
            about |= {f"PhysicalSize{letter}": edge, f"PhysicalSize{letter}Unit": unit}
        if volume.channel_names:
            about["Channel"] = {"Name": list(volume.channel_names)}
        array = volume.array.transpose(0, 3, 2, 1)
        tifffile.imwrite(reference, array, photometric="minisblack", metadata=about, **self.options)
        return reference

    def peek(self, reference: str) -> Volume | None:
        try:
            about = ome_types.from_tiff(reference)
        except FileNotFoundError:
            return None
        (image,) = about.images
        pixels, plane = image.pixels, image.pixels.planes[0]
        names = {"mm": "mm", "µm": "um", "reference frame": "unknown"}
        units = {getattr(pixels, f"physical_size_{letter}_unit").value for letter in "xyz"}
        affine = np.diag([pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z, 1.0])
        affine[:3, 3] = plane.position_x, plane.position_y, plane.position_z
        shape = shape3((pixels.size_x, pixels.size_y, pixels.size_z))
        stored = tifffile.imread(reference).reshape(pixels.size_c, *shape[::-1])
        channels = tuple(channel.name for channel in pixels.channels if channel.name)
        grid = Grid(shape, affine, names[units.pop()])
        return Volume(stored.transpose(0, 3, 2, 1), grid, channels, _labels(about))

    def occupied(self) -> set[str]:
        return {str(path.resolve()) for path in self.folder.rglob("*")}


class TestBigEndianTiles(TestOmeTiff):
    suffix = ".ome.tiff"
    options: ClassVar = {"bigtiff": True, "byteorder": ">", "tile": (16, 16), "compression": "zstd"}


class TestImageJ(_Files):
    """ImageJ states no place, no 64-bit values, and x and y as fractions."""

    dtypes = ("uint8", "uint16", "float32")
    units = ("um", "mm")
    keeps_origin = False
    largest_misfit = 1e-4

    def place(self, volume: Volume) -> str:
        reference, spacing = self.new_reference(), volume.grid.spacing
        tifffile.imwrite(
            reference,
            volume.array.transpose(3, 0, 2, 1),
            imagej=True,
            resolution=(1 / spacing[0], 1 / spacing[1]),
            metadata={"axes": "ZCYX", "spacing": spacing[2], "unit": volume.grid.unit},
        )
        return reference


def _labels(about: Any) -> LabelTable | None:
    maps = {str(a.namespace): {m.k: m.value for m in a.value.ms} for a in about.structured_annotations}
    names, colours = maps.get("voxport:label-names"), maps.get("voxport:label-colours")
    if names is None or colours is None:
        return None
    return LabelTable(tuple(Label(int(value), name, colours[value]) for value, name in names.items()))

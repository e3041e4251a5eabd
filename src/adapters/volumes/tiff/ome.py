"""Voxel sizes, place and channels in the OME-XML of a TIFF file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .stated import Stated
from .units import grid_unit, in_one_unit

_OME_UNIT = "µm"  # where the attribute of a unit is absent, by OME's schema
_STAGE_UNIT = "reference frame"  # the same for positions
# Largest deviation of the planes' steps from each other, and of their mean from PhysicalSizeZ.
_UNEVEN, _DIFFERENT = 0.1, 0.05


@dataclass(frozen=True)
class OmeImage:
    """One image in OME-XML: its name, attributes of its pixels, channels and planes, and the planes that it claims."""

    name: str
    pixels: Mapping[str, str]
    channels: Sequence[Mapping[str, str]]
    planes: Sequence[Mapping[str, str]]
    most_planes: int

    def stated(self) -> Stated:
        """Return what the image states."""
        lengths, sources = {}, {}
        for letter in "XYZ":
            size = f"PhysicalSize{letter}"
            sources[letter] = size
            if size not in self.pixels:
                continue
            unit = self.pixels.get(f"{size}Unit")
            if unit is None:
                sources[letter] = f"{size} in um, OME's default"
            lengths[letter] = (_number(self.pixels[size]), unit or _OME_UNIT)
        joined = in_one_unit(lengths)
        if joined is None:
            units = ", ".join(f"{sources[letter]} in {unit}" for letter, (_, unit) in lengths.items())
            return Stated(sources=sources, channel_names=self._channel_names, conflicts=(units,))
        stated = Stated(joined[0], joined[1], sources, channel_names=self._channel_names)
        on_stage = all(self.pixels.get(f"PhysicalSize{letter}Unit") == _STAGE_UNIT for letter in "XYZ")
        return self._placed(stated) if self.planes and (stated.unit != "unknown" or on_stage) else stated

    @property
    def _channel_names(self) -> tuple[str, ...]:
        if not any(channel.get("Name") for channel in self.channels):
            return ()
        return tuple(channel.get("Name") or f"channel {at}" for at, channel in enumerate(self.channels))

    def _placed(self, stated: Stated) -> Stated:
        """Return a statement with the positions of the planes, where they are of its unit and agree."""
        first = [plane for plane in self.planes if plane.get("TheC", "0") == plane.get("TheT", "0") == "0"]
        places = [self._place(plane, stated.unit) for plane in sorted(first, key=lambda plane: _index(plane, "TheZ"))]
        found = [place for place in places if place is not None]
        if not found or len(found) != len(places) or _index(first[0], "TheZ") != 0:
            return stated
        steps = [after[2] - before[2] for before, after in pairwise(found)]
        mean = sum(steps) / len(steps) if steps else 0.0
        if any(place[:2] != found[0][:2] for place in found) or mean < 0:
            return stated
        if not any(steps):
            return replace(stated, origin=found[0])
        if any(abs(step - mean) > _UNEVEN * mean for step in steps):
            return stated
        stated = replace(stated, origin=found[0])
        depth = stated.spacing.get("Z", math.nan)
        if abs(mean - depth) > _DIFFERENT * depth:
            conflict = f"PhysicalSizeZ of {depth:.6g} {stated.unit}, planes {mean:.6g} {stated.unit} apart"
            return replace(stated, conflicts=(*stated.conflicts, conflict))
        return stated

    @staticmethod
    def _place(plane: Mapping[str, str], unit: str) -> tuple[float, float, float] | None:
        """Return the position of a plane in a unit of a grid; None where it states none in such a unit."""
        place = []
        for letter in "XYZ":
            name = plane.get(f"Position{letter}Unit", _STAGE_UNIT)
            value = _number(plane.get(f"Position{letter}", "nan"))
            known, factor = grid_unit(name) or ("unknown", 1.0)
            if {known, unit} == {"mm", "um"}:
                factor *= 1e3 if known == "mm" else 1e-3
            elif known != unit:
                return None
            if not math.isfinite(value):
                return None
            place.append(value * factor)
        return place[0], place[1], place[2]


@dataclass(frozen=True)
class OmeFile:
    """OME-XML of a file: its images, the names of the files of their planes, and of the file with the metadata.

    ``metadata_file`` is empty where the file has its own metadata.
    """

    images: Sequence[OmeImage]
    files: frozenset[str]
    metadata_file: str = ""

    def image(self, number: int, name: str, count: int) -> OmeImage | None:
        """Return the image of one of tifffile's ``count`` series; None where it is not clear which."""
        if len(self.images) == count:
            return self.images[number]
        named = [image for image in self.images if image.name == name]
        if len(named) == 1:
            return named[0]
        return self.images[0] if len(self.images) == 1 else None


def read_ome(text: str) -> OmeFile:
    """Parse OME-XML.

    Raises:
        ValueError: not well-formed, or with a document type, which could define entities.
    """
    from xml.etree import ElementTree

    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("OME-XML with a document type")
    try:
        root = ElementTree.fromstring(text.rstrip("\0 \n"))
    except ElementTree.ParseError as error:
        raise ValueError(f"OME-XML that is not well-formed ({error})") from None
    images, files = [], set()
    for image in _children(root, "Image"):
        for pixels in _children(image, "Pixels"):
            channels = [channel.attrib for channel in _children(pixels, "Channel")]
            planes = [plane.attrib for plane in _children(pixels, "Plane")]
            most = math.prod(_index(pixels.attrib, f"Size{letter}") or 1 for letter in "ZCT")
            for data in _children(pixels, "TiffData"):
                most = max(most, *(_index(data.attrib, name) for name in ("PlaneCount", "NumPlanes", "IFD")))
                files |= {uuid.attrib.get("FileName", "") for uuid in _children(data, "UUID")}
            images.append(OmeImage(image.attrib.get("Name", ""), pixels.attrib, channels, planes, most))
    binary = [element.attrib.get("MetadataFile", "another file") for element in _children(root, "BinaryOnly")]
    return OmeFile(tuple(images), frozenset(files - {""}), binary[0] if binary else "")


def _children(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _index(plane: Mapping[str, str], name: str) -> int:
    text = plane.get(name, "0")
    return int(text) if text.isascii() and text.isdigit() else 0

"""OME-XML of new volumes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA = f"{_NAMESPACE} {_NAMESPACE}/ome.xsd"
# Namespaces of the annotations that say what the values of a label map mean.
LABEL_NAMES, LABEL_COLOURS = "voxport:label-names", "voxport:label-colours"
TYPES = {"float32": "float", "float64": "double"} | dict.fromkeys(
    ("int8", "int16", "int32", "uint8", "uint16", "uint32"), ""
)
_UNITS = {"um": "µm", "mm": "mm", "unknown": "reference frame"}
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def ome_xml(
    grid: Grid, dtype: np.dtype[Any], channel_names: Sequence[str], channels: int, labels: LabelTable | None
) -> bytes:
    """Return the OME-XML of a volume whose pages are along z, then channels."""
    root = ElementTree.Element("OME", {
        "xmlns": _NAMESPACE, "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": _SCHEMA, "Creator": "voxport",
    })  # fmt: skip
    image = ElementTree.SubElement(root, "Image", {"ID": "Image:0"})
    unit = _UNITS[grid.unit]
    sizes = dict(zip("XYZ", grid.shape, strict=True))
    attributes = {"ID": "Pixels:0", "DimensionOrder": "XYZCT", "Type": TYPES[dtype.name] or dtype.name}
    attributes |= {f"Size{letter}": str(edge) for letter, edge in sizes.items()}
    attributes |= {"SizeC": str(channels), "SizeT": "1", "BigEndian": "false"}
    for letter, edge in zip("XYZ", grid.spacing, strict=True):
        attributes |= {f"PhysicalSize{letter}": repr(edge), f"PhysicalSize{letter}Unit": unit}
    pixels = ElementTree.SubElement(image, "Pixels", attributes)
    for at in range(channels):
        about = {"ID": f"Channel:0:{at}", "SamplesPerPixel": "1"}
        if channel_names:
            about["Name"] = _clean(channel_names[at])
        ElementTree.SubElement(pixels, "Channel", about)
    ElementTree.SubElement(pixels, "TiffData", {"IFD": "0", "PlaneCount": str(sizes["Z"] * channels)})
    _add_planes(pixels, grid, channels, unit)
    if labels is not None and labels.labels:
        _add_labels(root, image, labels)
    text: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return text


def _add_planes(pixels: ElementTree.Element, grid: Grid, channels: int, unit: str) -> None:
    """Add the place of each plane, which is that of its first voxel."""
    x, y, z = (float(edge) for edge in grid.affine[:3, 3])
    depth = grid.spacing[2]
    for channel in range(channels):
        for at in range(grid.shape[2]):
            attributes = {"TheZ": str(at), "TheT": "0", "TheC": str(channel)}
            for letter, place in zip("XYZ", (x, y, z + at * depth if at else z), strict=True):
                attributes |= {f"Position{letter}": repr(place), f"Position{letter}Unit": unit}
            ElementTree.SubElement(pixels, "Plane", attributes)


def _add_labels(root: ElementTree.Element, image: ElementTree.Element, labels: LabelTable) -> None:
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    names = {label.value: label.name for label in labels.labels}
    colours = {label.value: label.colour for label in labels.labels}
    for at, (namespace, texts) in enumerate(((LABEL_NAMES, names), (LABEL_COLOURS, colours))):
        about = {"ID": f"Annotation:{at}", "Namespace": namespace}
        value = ElementTree.SubElement(ElementTree.SubElement(annotations, "MapAnnotation", about), "Value")
        for key, text in texts.items():
            ElementTree.SubElement(value, "M", {"K": str(key)}).text = _clean(text)
        ElementTree.SubElement(image, "AnnotationRef", {"ID": about["ID"]})


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub(" ", text)

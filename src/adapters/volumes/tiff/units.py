"""Units of length as TIFF files name them."""

from __future__ import annotations

from collections.abc import Mapping

from ....domain.geometry.grid import unit_factor
from ....domain.reading import LENGTH_UNITS, length_unit

# Names of OME, ImageJ and instruments beside those of the domain: the unit of a grid and the factor to it.
_NAMES: Mapping[str, tuple[str, float]] = {
    "\\u00b5m": ("um", 1.0),  # as ImageJ escapes it
    **dict.fromkeys(("inch", "inches", "in"), ("mm", 25.4)),
    **dict.fromkeys(("angstrom", "Å", "å", "\u212b"), ("um", 1e-4)),
    "pm": ("um", 1e-6),
    "dm": ("mm", 100.0),
}


def grid_unit(name: str) -> tuple[str, float] | None:
    """Return the unit of a grid and the factor to it; None for a name that is no length, e.g. ``pixel``.

    The case of short names counts: Mm is a megametre.
    """
    name = name.strip().strip("\0").strip('"')
    if len(name) > 3 or name == name.lower():
        known = length_unit(name)
        return LENGTH_UNITS[known] if known else _NAMES.get(name.lower())
    return _NAMES.get(name)


def in_one_unit(lengths: Mapping[str, tuple[float, str]]) -> tuple[dict[str, float], str] | None:
    """Return lengths, each with the name of its unit, in one unit of a grid.

    Names that are no lengths give ``unknown``; None where some are lengths and some are not.
    """
    known = {letter: grid_unit(name) for letter, (_, name) in lengths.items()}
    if not any(known.values()):
        return {letter: value for letter, (value, _) in lengths.items()}, "unknown"
    scaled, units = {}, set()
    for letter, unit in known.items():
        if unit is None:
            return None
        units.add(unit[0])
        scaled[letter] = lengths[letter][0] * unit[1]
    if len(units) == 1:
        return scaled, units.pop()
    own = {letter: unit[0] for letter, unit in known.items() if unit is not None}
    return {letter: value * unit_factor(own[letter], "um") for letter, value in scaled.items()}, "um"

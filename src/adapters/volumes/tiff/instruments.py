"""Voxel sizes in the metadata of instruments: Zeiss LSM, MetaMorph STK, Olympus FluoView, Micro-Manager, ScanImage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from .imagej import tag_sizes
from .stated import Stated
from .units import in_one_unit

_UM_IN_METRES = 1e6


def instrument_sizes(tiff: Any) -> Stated | None:
    """Return what an instrument states; None for a file of none."""
    if tiff.is_lsm:
        return _lsm(tiff.lsm_metadata)
    if tiff.is_stk:
        return _stk(tiff.stk_metadata)
    if tiff.is_fluoview:
        return _fluoview(tiff.fluoview_metadata)
    if tiff.is_micromanager:
        with suppress(ValueError):  # newer versions keep it in another file
            return _micromanager(tiff.micromanager_metadata)
    if tiff.is_scanimage and isinstance(tiff.scanimage_metadata, Mapping):
        return _scanimage(tiff.scanimage_metadata, tiff.pages[0])
    return None


def _lsm(meta: Mapping[str, Any]) -> Stated:
    sizes = {letter: float(meta.get(f"VoxelSize{letter}", 0)) * _UM_IN_METRES for letter in "XYZ"}
    colours = meta.get("ChannelColors") or {}
    names = tuple(str(name) for name in colours.get("ColorNames", ()))
    return Stated(sizes, "um", {letter: f"LSM VoxelSize{letter}" for letter in "XYZ"}, channel_names=names)


def _stk(meta: Mapping[str, Any]) -> Stated:
    unit = str(meta.get("CalibrationUnits", ""))
    lengths = {letter: (float(meta.get(f"{letter}Calibration", 0)), unit) for letter in "XY"}
    steps = np.atleast_1d(np.asarray(meta.get("ZDistance", 0), np.float64))
    if len(steps) and np.allclose(steps, steps[0], rtol=0.01, atol=0):
        lengths["Z"] = (float(steps[0]), unit)
    sources = {"X": "STK XCalibration", "Y": "STK YCalibration", "Z": "STK ZDistance"}
    spacing, name = in_one_unit(lengths) or ({}, "unknown")
    return Stated(spacing, name, sources)


def _fluoview(meta: Mapping[str, Any]) -> Stated:
    lengths = {}
    for name, _, _, size, unit, *_ in meta.get("Dimensions", ()):
        if str(name).upper() in ("X", "Y", "Z"):
            lengths[str(name).upper()] = (float(size), str(unit))
    spacing, name = in_one_unit(lengths) or ({}, "unknown")
    return Stated(spacing, name, dict.fromkeys(lengths, "FluoView dimensions"))


def _micromanager(meta: Mapping[str, Any]) -> Stated | None:
    summary = meta.get("Summary")
    if not isinstance(summary, Mapping):
        return None
    edge, depth = summary.get("PixelSize_um"), summary.get("z-step_um")
    spacing = {letter: float(edge) for letter in "XY" if edge} | ({"Z": float(depth)} if depth else {})
    names = tuple(str(name) for name in summary.get("ChNames") or ())
    sources = {"X": "PixelSize_um", "Y": "PixelSize_um", "Z": "z-step_um"}
    return Stated(spacing, "um", sources, channel_names=names) if spacing else None


def _scanimage(meta: Mapping[str, Any], page: Any) -> Stated:
    """ScanImage states the step along z in um; x and y are in the tags of newer versions."""
    step = (meta.get("FrameData") or {}).get("SI.hStackManager.stackZStepSize")
    tags = tag_sizes(page)
    sources = {**tags.sources, "Z": "ScanImage stackZStepSize"}
    if not isinstance(step, (int, float)) or not step:
        return replace(tags, sources=sources)
    factor = 1e3 if tags.unit == "mm" else 1.0
    spacing = {letter: edge * factor for letter, edge in tags.spacing.items()} | {"Z": abs(float(step))}
    return Stated(spacing, "um", sources)

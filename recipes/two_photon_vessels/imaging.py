"""A simple model of a two-photon microscope, from vessels to an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .raster import DrawnVessels

Float32Array = NDArray[np.float32]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Optics:
    """Imaging parameters. Brightness is relative to plasma in a well-lit vessel (1); lengths in µm."""

    lateral_um: float
    axial_um: float
    tail: float
    dimming: float
    unevenness: float
    wall: float
    streaks: float
    beads: float
    cell_shadows: float
    haze: float
    background: float
    texture: float
    leakage: float
    spots_per_mm3: float
    cells_per_mm3: float
    meninges: float
    capillary_gain: float
    trunk_gain: float
    photons: float
    read_noise: float
    line_noise: float
    denoise: float
    smooth_voxels: float
    shake_voxels: float
    glow: float
    saturation: float
    bits: int


def draw_optics(rng: np.random.Generator) -> Optics:
    """Draw imaging parameters from wide ranges: raw or denoised, clean or leaky, bright or noisy."""

    def often(chance: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < chance else 0.0

    def magnitude(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    denoised = rng.random() < 0.55
    background, capillary_gain = magnitude(0.005, 0.3), magnitude(0.2, 1.3)
    noise = capillary_gain / magnitude(1.5, 25.0)
    electronic = rng.uniform(0.0, 0.5)
    return Optics(
        lateral_um=rng.uniform(0.3, 1.4),
        axial_um=magnitude(1.0, 7.0),
        tail=often(0.5, 0.05, 0.35),
        dimming=rng.uniform(0.0, 1.6),
        unevenness=rng.uniform(0.1, 1.2),
        wall=often(0.4, 0.2, 1.0),
        streaks=often(0.6, 0.05, 0.45),
        beads=often(0.5, 0.2, 0.9),
        cell_shadows=often(0.4, 0.1, 0.5),
        haze=often(0.55, 0.02, 0.2),
        background=background,
        texture=rng.uniform(0.0, 0.5),
        leakage=often(0.4, 0.05, 1.5),
        spots_per_mm3=often(0.5, 1e4, 3e5),
        cells_per_mm3=often(0.25, 1e3, 2e4),
        meninges=often(0.4, 0.2, 3.5),
        capillary_gain=capillary_gain,
        trunk_gain=magnitude(0.3, 2.0),
        photons=(background + 0.3 * capillary_gain) / ((1 - electronic) * noise**2),
        read_noise=noise * electronic**0.5,
        line_noise=noise * often(0.5, 0.1, 1.2),
        denoise=rng.uniform(0.6, 1.3) if denoised else 0.0,
        smooth_voxels=often(0.4, 0.3, 2.0),
        shake_voxels=often(0.25, 0.2, 2.0),
        glow=often(0.5, 0.05, 0.8),
        saturation=often(0.3, 0.3, 1.5),
        bits=int(rng.choice([8, 8, 12, 12, 16])),
    )


def smooth_noise(shape: tuple[int, ...], scale_voxels: tuple[float, ...], rng: np.random.Generator) -> Float32Array:
    """Gaussian noise of unit variance whose grain is about `scale_voxels` along each axis."""
    stride = [max(scale / 1.5, 1.0) for scale in scale_voxels]
    coarse = [int(np.ceil(size / step)) + 3 for size, step in zip(shape, stride, strict=True)]
    grain = rng.standard_normal(coarse, dtype=np.float32)
    grain = gaussian_filter(
        grain, [min(scale / step, 1.5) * 0.7 for scale, step in zip(scale_voxels, stride, strict=True)]
    )
    for axis, (size, step) in enumerate(zip(shape, stride, strict=True)):
        grain = np.moveaxis(_stretch(grain, axis, size, step), 0, axis)
    return np.asarray((grain - grain.mean()) / max(float(grain.std()), 1e-6), dtype=np.float32)


def _stretch(coarse: Float32Array, axis: int, size: int, step: float) -> Float32Array:
    """Linear interpolation of one axis at 0, 1/step, 2/step, ...; that axis, now of `size`, comes first."""
    lines = np.moveaxis(coarse, axis, 0)
    if step == 1.0:
        return lines[:size]
    at = np.arange(size) / step
    low = at.astype(int)
    weights = np.zeros((size, lines.shape[0]), dtype=np.float32)
    weights[np.arange(size), low] = 1.0 - (at - low)
    weights[np.arange(size), low + 1] = at - low
    return np.asarray(np.tensordot(weights, lines, axes=1), dtype=np.float32)


def micrograph(drawn: DrawnVessels, spacing_um: Spacing, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Return the image (X, Y, Z), from 0, in the detector's units; random detail comes from `rng`."""
    lit = _gain(drawn, spacing_um, optics, rng)
    vessels = _vessel_light(drawn, spacing_um, optics, rng) * lit
    tissue = _tissue_light(drawn, vessels, spacing_um, optics, rng)
    light = _blur(vessels + tissue + _distractors(drawn.inside_um.shape, spacing_um, optics, rng), spacing_um, optics)
    if optics.shake_voxels:
        light = _shake(light, optics.shake_voxels, rng)
    return _detect(np.maximum(light, 0.0), optics, rng)


def _shake(light: Float32Array, voxels: float, rng: np.random.Generator) -> Float32Array:
    """Shift each scanned line along itself by about `voxels`, smoothly from line to line, as breathing does."""
    size, lines, slices = light.shape
    drift = gaussian_filter1d(rng.standard_normal((lines, slices)), rng.uniform(1.0, 8.0), axis=0)
    drift *= voxels / max(float(drift.std()), 1e-6)
    at = np.clip(np.arange(size)[:, None, None] + drift, 0.0, size - 1.0)
    low = np.minimum(at.astype(int), size - 2)
    share = (at - low).astype(np.float32)
    before, after = (np.take_along_axis(light, low + step, axis=0) for step in (0, 1))
    return np.asarray(before * (1 - share) + after * share, dtype=np.float32)


def _gain(drawn: DrawnVessels, spacing_um: Spacing, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Return the illumination: fading with depth, slow fields, and shadows below large vessels."""
    shape = drawn.inside_um.shape
    depth = np.linspace(0.0, 1.0, shape[2], dtype=np.float32)
    fading = np.exp(-optics.dimming * (depth if rng.random() < 0.7 else depth[::-1]))
    ripple = np.exp(0.15 * optics.unevenness * rng.standard_normal((shape[2],)).astype(np.float32))
    field = smooth_noise(shape, (shape[0] / 3.0, shape[1] / 3.0, max(shape[2] / 2.0, 2.0)), rng)
    large = np.clip(drawn.inside_um, 0.0, None) * (drawn.radius_um > 8.0)
    above = np.cumsum(large > 0, axis=2) * spacing_um[2]
    shadow = np.exp(-rng.uniform(0.0, 0.02) * above)
    return np.asarray(np.exp(0.6 * optics.unevenness * field) * fading * ripple * shadow, dtype=np.float32)


def _vessel_light(drawn: DrawnVessels, spacing_um: Spacing, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Return dye in plasma: soft-edged tubes with tones, walls, streaks, gaps between blood cells and beads."""
    shape = drawn.inside_um.shape
    edge_um = max(spacing_um[0], 0.5)
    cover = np.clip(0.5 + drawn.inside_um / edge_um, 0.0, 1.0)
    large = np.clip((drawn.radius_um - 3.5) / 4.0, 0.0, 1.0)
    light = cover * drawn.tone * (optics.capillary_gain * (1 - large) + optics.trunk_gain * large)
    if optics.wall:
        thickness_um = rng.uniform(1.0, 4.0) + spacing_um[0]
        rim = np.exp(-(((drawn.inside_um - 0.5 * thickness_um) / thickness_um) ** 2))
        light *= 1 - 0.7 * optics.wall * large * (1 - 1.4 * rim)
    if optics.streaks:
        light *= np.exp(optics.streaks * large * _lines(shape, rng))
    if optics.cell_shadows:
        cells = smooth_noise(shape, tuple(max(3.0 / step, 0.7) for step in spacing_um), rng)
        light *= np.exp(-optics.cell_shadows * np.clip(cells, 0.0, 2.0))
    if optics.beads:
        gaps = smooth_noise(shape, tuple(max(rng.uniform(3.0, 7.0) / step, 0.8) for step in spacing_um), rng)
        light *= 1 - optics.beads * (1 - large) * np.clip(0.4 + 0.8 * gaps, 0.0, 1.0)
    return np.asarray(light, dtype=np.float32)


def _lines(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Return unit-variance noise smeared along the fast scan axis, by 2 voxels or most of a line."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    fast = int(rng.random() < 0.3)
    noise = gaussian_filter1d(noise, np.exp(rng.uniform(np.log(2.0), np.log(60.0))), axis=fast)
    noise = gaussian_filter1d(noise, rng.uniform(0.3, 1.0), axis=1 - fast)
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)


def _tissue_light(
    drawn: DrawnVessels, vessels: Float32Array, spacing_um: Spacing, optics: Optics, rng: np.random.Generator
) -> Float32Array:
    """Return diffuse light: background, its texture, out-of-focus haze, leaked dye, glows, bright sheets."""
    shape = drawn.inside_um.shape
    slow = smooth_noise(shape, (60.0, 60.0, 6.0), rng)
    mottle = smooth_noise(shape, tuple(max(rng.uniform(2.0, 9.0) / step, 0.8) for step in spacing_um), rng)
    tissue = optics.background * np.exp(0.5 * optics.unevenness * slow + optics.texture * mottle)
    if optics.haze:
        reach = rng.uniform(4.0, 25.0)
        tissue = tissue + optics.haze * gaussian_filter(
            vessels, (reach / spacing_um[0], reach / spacing_um[1], 2.5 * reach / spacing_um[2]), truncate=2.5
        )
    if optics.leakage:
        reach = rng.uniform(5.0, 30.0)
        cloud = gaussian_filter(
            (drawn.inside_um > 0).astype(np.float32), tuple(reach / step for step in spacing_um), truncate=2.5
        )
        cloud /= max(float(cloud.max()), 1e-6)
        place = np.clip(smooth_noise(shape, (50.0, 50.0, 8.0), rng), 0.0, None)
        soma_holes = np.clip(1.0 - 0.6 * np.clip(mottle, 0.0, 1.5), 0.0, None)
        tissue = tissue + optics.leakage * cloud * place * soma_holes
    if optics.glow:
        breadth = np.exp(rng.uniform(np.log(15.0), np.log(120.0)))
        place = smooth_noise(shape, (breadth, breadth, max(breadth / 6.0, 2.0)), rng) - rng.uniform(0.0, 1.5)
        tissue = tissue + optics.glow * optics.capillary_gain * np.clip(place, 0.0, None)
    if optics.meninges:
        sheet = np.exp(-np.arange(shape[2]) * spacing_um[2] / rng.uniform(5.0, 60.0)).astype(np.float32)
        breadth, edge = rng.uniform(40.0, 160.0), np.exp(rng.uniform(0.0, np.log(20.0)))
        patch = np.clip(edge * (smooth_noise(shape[:2], (breadth, breadth), rng) - rng.uniform(-0.2, 1.0)), 0.0, 1.5)
        fibres = np.exp(0.5 * smooth_noise(shape, (rng.uniform(1.0, 6.0), rng.uniform(1.0, 6.0), 1.0), rng))
        somas = 1.0 - rng.uniform(0.0, 0.9) * np.clip(2.0 * mottle - rng.uniform(1.5, 4.0), 0.0, 1.0)
        tissue = tissue + optics.meninges * patch[:, :, None] * fibres * somas * sheet
    return np.asarray(tissue, dtype=np.float32)


def _distractors(shape: tuple[int, ...], spacing_um: Spacing, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Return bright structures other than vessels: specks, round cells, and cells with processes."""
    light = np.zeros(shape, dtype=np.float32)
    volume_mm3 = float(np.prod(shape)) * float(np.prod(spacing_um)) * 1e-9
    specks = min(int(rng.poisson(optics.spots_per_mm3 * volume_mm3)), 400)
    at = tuple(rng.integers(0, size, specks) for size in shape)
    light[at] = rng.uniform(0.3, 2.5, specks)
    light = gaussian_filter(light, (rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.2), 0.4)) * 4.0 if specks else light
    for _ in range(min(int(rng.poisson(optics.cells_per_mm3 * volume_mm3)), 60)):
        _add_cell(light, spacing_um, rng)
    return light


def _add_cell(light: Float32Array, spacing_um: Spacing, rng: np.random.Generator) -> None:
    """Add a soma of 3-8 µm radius, solid or hollow, with up to six straight processes."""
    spacing, shape = np.asarray(spacing_um), np.asarray(light.shape)
    centre = rng.uniform(0.0, 1.0, 3) * shape * spacing
    radii = rng.uniform(3.0, 8.0) * rng.uniform(0.7, 1.3, 3) + np.array([0.0, 0.0, 2.0])
    low = np.clip(np.floor((centre - 1.5 * radii) / spacing), 0, shape).astype(int)
    high = np.clip(np.ceil((centre + 1.5 * radii) / spacing) + 1, 0, shape).astype(int)
    axes = [(np.arange(low[k], high[k]) * spacing[k] - centre[k]) / radii[k] for k in range(3)]
    distance = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2)
    brightness = rng.uniform(0.15, 1.2)
    body = np.clip(3.0 * (1.0 - distance), 0.0, 1.0)
    if rng.random() < 0.3:
        body *= np.clip(2.0 * distance - 0.4, 0.0, 1.0)
    light[low[0] : high[0], low[1] : high[1], low[2] : high[2]] += (brightness * body).astype(np.float32)
    for _ in range(int(rng.integers(0, 7))):
        direction = rng.normal(size=3) * np.array([1.0, 1.0, 0.4])
        direction /= np.linalg.norm(direction)
        along = np.arange(0.0, rng.uniform(8.0, 25.0), 0.5 * spacing[0])
        voxel = np.rint((centre + along[:, None] * direction) / spacing).astype(int)
        voxel = voxel[((voxel >= 0) & (voxel < shape)).all(axis=1)]
        light[tuple(voxel.T)] = np.maximum(light[tuple(voxel.T)], 0.6 * brightness)


def _blur(light: Float32Array, spacing_um: Spacing, optics: Optics) -> Float32Array:
    """Apply the point-spread function: a Gaussian with a faint tail, wider along z.

    The tubes are drawn with the blurred height, so along z only their edges are softened.
    """
    width = np.array([optics.lateral_um, optics.lateral_um, optics.axial_um]) / np.asarray(spacing_um)
    sharp = gaussian_filter(light, width * (1.0, 1.0, 0.5), truncate=3.0)
    if not optics.tail:
        return np.asarray(sharp, dtype=np.float32)
    return np.asarray(
        (1 - optics.tail) * sharp + optics.tail * gaussian_filter(sharp, 2.0 * width, truncate=3.0), dtype=np.float32
    )


def _detect(light: Float32Array, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Shot, read and line noise; smoothing or denoising; saturation; whole numbers of `bits` bits."""
    counts = rng.poisson(light * optics.photons).astype(np.float32) / np.float32(optics.photons)
    counts += optics.read_noise * rng.standard_normal(counts.shape, dtype=np.float32)
    if optics.line_noise:
        lines = _lines(counts.shape, rng)
        counts = counts + optics.line_noise * (lines if rng.random() < 0.5 else lines * (light + 0.1))
    if optics.denoise:
        counts = _shrink(counts, optics, rng)
    if optics.smooth_voxels:
        along_z = rng.uniform(0.0, 0.5) * optics.smooth_voxels
        counts = gaussian_filter(counts, (optics.smooth_voxels, optics.smooth_voxels, along_z))
    ceiling = float(np.quantile(counts[::3, ::3], 0.999))
    if optics.saturation:
        ceiling *= np.exp(-optics.saturation)
    top = 2**optics.bits - 1
    offset = rng.uniform(0.0, 0.05)
    full = rng.uniform(0.4, 1.0) if not optics.saturation else 1.0
    return np.asarray(np.rint(np.clip((offset + counts / max(ceiling, 1e-6) * full), 0.0, 1.0) * top), dtype=np.float32)


def _shrink(counts: Float32Array, optics: Optics, rng: np.random.Generator) -> Float32Array:
    """Shrink the cosine transform of 8x8x4 blocks on shifted grids: the blotchy look of BM4D without block matching."""
    stable = 2.0 * np.sqrt(np.maximum(counts, 0.0) + optics.read_noise**2 * optics.photons + 0.375 / optics.photons)
    threshold = optics.denoise * 2.7 / np.sqrt(optics.photons)
    block = np.array([8, 8, 4])
    total = np.zeros(stable.shape, dtype=np.float32)
    shifts = rng.integers(0, block, (3, 3))
    for shift in shifts:
        pad = [(int(s), int(-(size + s) % b)) for s, size, b in zip(shift, stable.shape, block, strict=True)]
        padded = np.pad(stable, pad, mode="reflect" if min(stable.shape) > 8 else "edge")
        nx, ny, nz = (size // b for size, b in zip(padded.shape, block, strict=True))
        blocks = padded.reshape(nx, 8, ny, 8, nz, 4)
        spectrum = dctn(blocks, axes=(1, 3, 5), norm="ortho")
        keep = np.abs(spectrum) > threshold
        keep[:, 0, :, 0, :, 0] = True
        smooth = idctn(spectrum * keep, axes=(1, 3, 5), norm="ortho").reshape(padded.shape)
        total += smooth[
            tuple(slice(before, before + size) for (before, _), size in zip(pad, stable.shape, strict=True))
        ]
    root = total / (2.0 * len(shifts))
    return np.asarray(
        np.maximum(root**2 - optics.read_noise**2 * optics.photons - 0.375 / optics.photons, 0.0), dtype=np.float32
    )

"""Synthetic two-photon volumes of vessels with labels, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .imaging import draw_optics, micrograph
from .raster import draw_network
from .vessels import GrowthPlan, VesselNetwork, grow_network

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
BACKGROUND, VESSEL, CENTRELINE, HIDDEN = 0, 1, 2, 3
LEAST_CONTRAST = 1 / 3


@dataclass(frozen=True, eq=False)
class SyntheticVolume:
    """An image (X, Y, Z) float32, its binary label (X, Y, Z) bool, the label's centrelines, and the spacing in µm.

    `visible` tells where an annotator could see the label in the image.
    """

    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    centreline: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    spacing_um: Spacing
    network: VesselNetwork


def draw_spacing(rng: np.random.Generator) -> Spacing:
    """Draw a voxel spacing in µm: 0.3-5 in plane, 1-10 along z and never finer than in plane."""
    if rng.random() < 0.6:
        in_plane = float(np.exp(rng.uniform(np.log(0.6), np.log(2.2))))
    else:
        in_plane = float(np.exp(rng.uniform(np.log(0.3), np.log(5.0))))
    along_z = float(np.clip(in_plane * np.exp(rng.uniform(0.0, np.log(8.0))), 1.0, 10.0))
    return in_plane, in_plane, max(along_z, in_plane)


def draw_plan(shape: Shape, spacing_um: Spacing, rng: np.random.Generator) -> GrowthPlan:
    """Draw the vessels of a volume: a capillary bed alone, with penetrating vessels, or under wide surface vessels."""
    width_um = shape[0] * spacing_um[0]
    kind = rng.choice(3, p=[0.15, 0.25, 0.6])
    low, high = (
        (4.5, min(15.0, 25 * spacing_um[0])) if kind == 1 else (6.0, min(55.0, 50 * spacing_um[0], 0.2 * width_um))
    )
    count = 0 if kind == 0 else int(rng.integers(1, 6 if kind == 2 else 8))
    radii = rng.uniform(low, max(high, low + 0.5), count)
    return GrowthPlan(
        capillary_density=float(np.exp(rng.uniform(np.log(4e-5), np.log(1.2e-3)))),
        capillary_radius_um=float(np.clip(np.exp(rng.normal(np.log(2.2), 0.2)), 1.4, 3.5)),
        trunk_radii_um=tuple(float(radius) for radius in radii),
        trunk_in_plane=bool(kind == 2),
        tortuosity=rng.uniform(0.1, 0.9),
        branch_rate=rng.uniform(0.5, 3.0),
    )


def generate(shape: Shape, spacing_um: Spacing, rng: np.random.Generator, margin_um: float = 0.0) -> SyntheticVolume:
    """Generate a volume of `shape` voxels. Vessels extend `margin_um` beyond every face, or end in view for 0."""
    plan = draw_plan(shape, spacing_um, rng)
    optics = draw_optics(rng)
    box_um = (np.asarray(shape) - 1) * np.asarray(spacing_um) + 2 * margin_um
    step_um = max(3.0, 2.5 * spacing_um[0])
    grown = grow_network(box_um, plan, step_um, rng)
    network = VesselNetwork(grown.points_um - margin_um, grown.segments, grown.radii_um, grown.tones)
    in_plane_um = spacing_um[0]
    skin_um = max(3.0 * in_plane_um, 3.0)
    axial_um = rng.uniform(0.9, 1.3) * optics.axial_um  # a Gaussian falls to half at 1.18 deviations
    drawn = draw_network(network, shape, spacing_um, axial_um=axial_um, skin_um=skin_um)
    image = micrograph(drawn, spacing_um, optics, rng)
    wide = np.clip((drawn.radius_um - 4.0) / 6.0, 0.0, 1.0)
    generous_um = in_plane_um * (rng.uniform(0.0, 0.5) + rng.uniform(0.0, 1.5) * wide)
    label = drawn.inside_um > -generous_um
    return SyntheticVolume(image, label, drawn.centreline & label, visible_label(image, label), spacing_um, network)


def visible_label(image: NDArray[np.float32], label: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of `label` that is brighter than the background around it by a third of its deviation.

    Both are averages over some 16 x 16 x 2 voxels; where these hold no background, the label counts as visible.
    """
    window = (8.0, 8.0, 1.0)
    picture = (image - image.mean()) / max(float(image.std()), 1e-6)
    inside = label.astype(np.float32)
    outside = 1.0 - inside
    share_in, share_out = gaussian_filter(inside, window), gaussian_filter(outside, window)
    vessel = gaussian_filter(picture * inside, window) / np.maximum(share_in, 1e-6)
    background = gaussian_filter(picture * outside, window) / np.maximum(share_out, 1e-6)
    square = gaussian_filter(picture**2 * outside, window) / np.maximum(share_out, 1e-6)
    deviation = np.sqrt(np.maximum(square - background**2, 1e-6))
    return np.asarray(label & ((share_out < 0.02) | (vessel - background > LEAST_CONTRAST * deviation)))

"""Draw a vessel network on a voxel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .vessels import VesselNetwork

Float32Array = NDArray[np.float32]
OUTSIDE_UM = -1.0e3


@dataclass(frozen=True, eq=False)
class DrawnVessels:
    """Arrays (X, Y, Z): depth inside the nearest tube (µm, outside < 0), its radius (µm) and tone; centrelines."""

    inside_um: Float32Array
    radius_um: Float32Array
    tone: Float32Array
    centreline: NDArray[np.bool_]


def draw_network(
    network: VesselNetwork,
    shape: tuple[int, int, int],
    spacing_um: tuple[float, float, float],
    axial_um: float,
    skin_um: float,
) -> DrawnVessels:
    """Draw every segment as a rounded cone.

    A tube's half height is the root of radius² + `axial_um`²: there its brightness is half for an elongated
    point-spread function, and annotators stop. The field is valid to `skin_um` outside a tube. A tube thinner than
    0.6 voxel is drawn at 0.6 voxel, so that it stays connected.
    """
    drawn = DrawnVessels(
        np.full(shape, OUTSIDE_UM, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, dtype=bool),
    )
    spacing = np.asarray(spacing_um)
    thinnest_um = 0.6 * max(spacing[0], spacing[1])
    radii = np.maximum(network.radii_um, thinnest_um)
    widest = radii.max(axis=1)
    stretch = widest / np.maximum(np.hypot(widest, axial_um), 0.6 * spacing[2])
    starts, ends = network.points_um[network.segments[:, 0]], network.points_um[network.segments[:, 1]]
    reach = widest + skin_um
    reaches = np.stack([reach, reach, reach / stretch], axis=1)
    low = np.floor((np.minimum(starts, ends) - reaches) / spacing).astype(int)
    high = np.ceil((np.maximum(starts, ends) + reaches) / spacing).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, np.array(shape))
    for index in np.flatnonzero((high > low).all(axis=1)).tolist():
        _draw_segment(
            drawn,
            index,
            low[index],
            high[index],
            starts[index],
            ends[index],
            radii[index],
            float(stretch[index]),
            spacing,
            network,
        )
    _mark_centrelines(drawn.centreline, starts, ends, spacing)
    return drawn


def _draw_segment(
    drawn: DrawnVessels,
    index: int,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    radii: NDArray[np.float64],
    stretch: float,
    spacing: NDArray[np.float64],
    network: VesselNetwork,
) -> None:
    metric = np.array([1.0, 1.0, stretch])
    axis = ((end - start) * metric).astype(np.float32)
    grid = [((np.arange(low[k], high[k]) * spacing[k] - start[k]) * metric[k]).astype(np.float32) for k in range(3)]
    x, y, z = grid[0][:, None, None], grid[1][None, :, None], grid[2][None, None, :]
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(max(float(axis @ axis), 1e-6)), 0.0, 1.0)
    distance = np.sqrt((x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2)
    radius = np.float32(radii[0]) + along * np.float32(radii[1] - radii[0])
    inside = radius - distance
    window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    better = inside > drawn.inside_um[window]
    drawn.inside_um[window][better] = inside[better]
    drawn.radius_um[window][better] = radius[better]
    drawn.tone[window][better] = network.tones[index]


def _mark_centrelines(
    centreline: NDArray[np.bool_], starts: NDArray[np.float64], ends: NDArray[np.float64], spacing: NDArray[np.float64]
) -> None:
    shape = np.array(centreline.shape)
    for share in np.linspace(0.0, 1.0, 9):
        voxel = np.rint(((1 - share) * starts + share * ends) / spacing).astype(int)
        voxel = voxel[((voxel >= 0) & (voxel < shape)).all(axis=1)]
        centreline[voxel[:, 0], voxel[:, 1], voxel[:, 2]] = True

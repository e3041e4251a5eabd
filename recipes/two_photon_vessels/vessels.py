"""Procedural vessel networks: one connected graph of tortuous, tapering tubes, in micrometres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GrowthPlan:
    """Growth parameters. Lengths in µm, density in µm of capillary per µm³ (cortex: about 1e-3)."""

    capillary_density: float
    capillary_radius_um: float
    trunk_radii_um: tuple[float, ...]
    trunk_in_plane: bool
    tortuosity: float
    branch_rate: float
    max_nodes: int = 3000


@dataclass(frozen=True, eq=False)
class VesselNetwork:
    """Tubes between points.

    `points_um` (P, 3); `segments` (S, 2) point indices; `radii_um` (S, 2) at both ends; `tones` (S,) brightness.
    """

    points_um: FloatArray
    segments: IntArray
    radii_um: FloatArray
    tones: FloatArray


def grow_network(box_um: FloatArray, plan: GrowthPlan, step_um: float, rng: np.random.Generator) -> VesselNetwork:
    """One connected network in the box from 0 to `box_um` ((3,) µm), with a point every `step_um` of a capillary."""
    trunks = [path for radius in plan.trunk_radii_um for path in _grow_tree(box_um, radius, plan, rng)]
    nodes = _capillary_nodes(box_um, plan, rng)
    anchors = np.concatenate([points for points, _ in trunks]) if trunks else np.empty((0, 3))
    links = _connect(anchors, nodes, _trunk_links(trunks), rng)
    points = np.concatenate([anchors, nodes])
    radii = np.concatenate([radius for _, radius in trunks] + [np.full(len(nodes), plan.capillary_radius_um)])
    tones = np.concatenate([_path_tone(len(path), rng) for path, _ in trunks] + [np.zeros(len(nodes))])
    return _refine(points, radii, tones, links, len(anchors), box_um, plan, step_um, rng)


def _grow_tree(
    box_um: FloatArray, radius_um: float, plan: GrowthPlan, rng: np.random.Generator
) -> list[tuple[FloatArray, FloatArray]]:
    """A trunk crossing the box and its daughters: a list of paths, each (points (n, 3) µm, radii (n,) µm)."""
    start = rng.uniform(0.0, 1.0, 3) * box_um
    if plan.trunk_in_plane:
        heading = rng.normal(size=3) * np.array([1.0, 1.0, 0.08])
        start[2] = rng.uniform(-0.1, 1.0) * box_um[2]
    else:
        heading = np.append(rng.normal(scale=rng.uniform(0.1, 0.9), size=2), 1.0)
    heading /= np.linalg.norm(heading)
    forth = _walk(start, heading, radius_um, box_um, plan, rng)
    back = _walk(start, -heading, radius_um, box_um, plan, rng)
    trunk = np.concatenate([back[:0:-1], forth])
    paths = [(trunk, radius_um * _taper(len(trunk), rng))]
    _sprout(paths, 0, radius_um, box_um, plan, rng)
    return paths


def _sprout(
    paths: list[tuple[FloatArray, FloatArray]],
    parent: int,
    radius_um: float,
    box_um: FloatArray,
    plan: GrowthPlan,
    rng: np.random.Generator,
) -> None:
    """Add daughters to `paths[parent]`, and theirs, until the radius nears a capillary's."""
    points, radii = paths[parent]
    length_um = len(points) * _step(radius_um)
    for _ in range(min(rng.poisson(plan.branch_rate * length_um / (12.0 * radius_um)), 5)):
        at = int(rng.integers(len(points)))
        daughter = float(radii[at]) * rng.uniform(0.3, 0.85)
        if daughter < 1.6 * plan.capillary_radius_um or len(paths) > 24:
            continue
        heading = rng.normal(size=3) * (np.array([1.0, 1.0, 0.15]) if rng.random() < 0.6 else np.array([0.5, 0.5, 1.0]))
        path = _walk(points[at], heading / np.linalg.norm(heading), daughter, box_um, plan, rng)
        if len(path) < 3:
            continue
        paths.append((path, daughter * _taper(len(path), rng)))
        _sprout(paths, len(paths) - 1, daughter, box_um, plan, rng)


def _step(radius_um: float) -> float:
    return max(0.5 * radius_um, 3.0)


def _taper(count: int, rng: np.random.Generator) -> FloatArray:
    """Relative radius along a path: a slow drift and gentle bulges."""
    along = np.linspace(0.0, 1.0, count)
    wave = np.sin(2 * np.pi * (rng.uniform(0.5, 4.0) * along + rng.random()))
    return np.asarray(np.exp(rng.normal(scale=0.25) * (along - 0.5) + 0.1 * wave))


def _path_tone(count: int, rng: np.random.Generator) -> FloatArray:
    """Logarithm of the brightness along a trunk: its own level and a slow drift."""
    along = np.linspace(-0.5, 0.5, count)
    return np.asarray(rng.normal(scale=0.8) + rng.normal(scale=0.9) * along)


def _walk(
    start: FloatArray,
    heading: FloatArray,
    radius_um: float,
    box_um: FloatArray,
    plan: GrowthPlan,
    rng: np.random.Generator,
) -> FloatArray:
    """Return a persistent random walk (n, 3) µm that ends at the box (along z by its radius) or after its length."""
    step_um = _step(radius_um)
    bend = rng.uniform(0.02, 0.16) * (0.5 + plan.tortuosity)
    flatten = np.array([1.0, 1.0, 0.25 if abs(heading[2]) < 0.5 else 1.0])
    slack_um = np.array([0.0, 0.0, radius_um])
    points = [start]
    drift = np.zeros(3)
    for _ in range(int(rng.integers(60, 400))):
        drift = 0.9 * drift + bend * rng.normal(size=3) * flatten
        heading = heading + 0.4 * drift
        heading = heading / np.linalg.norm(heading)
        point = points[-1] + step_um * heading
        points.append(point)
        if np.any(point < -slack_um) or np.any(point > box_um + slack_um):
            break
    return np.array(points)


def _capillary_nodes(box_um: FloatArray, plan: GrowthPlan, rng: np.random.Generator) -> FloatArray:
    """Return the branching points of the capillary bed, (n, 3) µm, without near duplicates."""
    volume = float(np.prod(box_um))
    count = int(np.clip(volume * (plan.capillary_density / 0.9) ** 1.5, 4, plan.max_nodes))
    candidates = rng.uniform(0.0, 1.0, (2 * count, 3)) * box_um
    spacing = 0.55 * (volume / count) ** (1 / 3)
    pairs = cKDTree(candidates).query_pairs(spacing, output_type="ndarray")
    drop = np.zeros(len(candidates), dtype=bool)
    drop[pairs[:, 1]] = True
    return np.asarray(candidates[~drop][:count])


def _trunk_links(trunks: list[tuple[FloatArray, FloatArray]]) -> IntArray:
    links, first = [np.empty((0, 2), dtype=np.int64)], 0
    for points, _ in trunks:
        index = np.arange(first, first + len(points))
        links.append(np.stack([index[:-1], index[1:]], axis=1))
        first += len(points)
    return np.concatenate(links)


def _connect(anchors: FloatArray, nodes: FloatArray, trunk_links: IntArray, rng: np.random.Generator) -> IntArray:
    """Links (n, 2) that join trunks and capillary nodes: a spanning tree of near neighbours and some loops."""
    points = np.concatenate([anchors, nodes])
    known = len(trunk_links)
    neighbours = min(9, len(points))
    distance, index = cKDTree(points).query(points, k=neighbours)
    first = np.repeat(np.arange(len(points)), neighbours - 1)
    second, length = index[:, 1:].ravel(), distance[:, 1:].ravel()
    wanted = (first >= len(anchors)) | (second >= len(anchors))
    first, second, length = (
        first[wanted],
        second[wanted],
        length[wanted] * rng.uniform(0.6, 1.4, int(wanted.sum())) + 1e-3,
    )
    rows, columns = np.concatenate([trunk_links[:, 0], first]), np.concatenate([trunk_links[:, 1], second])
    weights = np.concatenate([np.full(known, 1e-6), length])
    graph = coo_array((weights, (rows, columns)), shape=(len(points), len(points))).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    links = np.stack([tree.row, tree.col], axis=1).astype(np.int64)
    links = np.concatenate([links, _bridges(points, links)])
    loops = rng.random(len(first)) < rng.uniform(0.0, 0.06)
    near = length < 1.5 * np.median(length) if len(length) else loops
    links = np.concatenate([links, np.stack([first, second], axis=1)[loops & near]])
    return np.unique(np.sort(links, axis=1), axis=0)


def _bridges(points: FloatArray, links: IntArray) -> IntArray:
    """Return the shortest links between components of the near-neighbour graph."""
    bridges: list[list[int]] = []
    while True:
        every = np.concatenate([links, np.array(bridges, dtype=np.int64).reshape(-1, 2)])
        graph = coo_array((np.ones(len(every)), (every[:, 0], every[:, 1])), shape=(len(points), len(points)))
        count, component = connected_components(graph, directed=False)
        if count == 1:
            return np.array(bridges, dtype=np.int64).reshape(-1, 2)
        inside = np.flatnonzero(component == component[0])
        outside = np.flatnonzero(component != component[0])
        distance, nearest = cKDTree(points[inside]).query(points[outside])
        best = int(np.argmin(distance))
        bridges.append([int(inside[nearest[best]]), int(outside[best])])


def _refine(
    points: FloatArray,
    radii: FloatArray,
    tones: FloatArray,
    links: IntArray,
    anchors: int,
    box_um: FloatArray,
    plan: GrowthPlan,
    step_um: float,
    rng: np.random.Generator,
) -> VesselNetwork:
    """Cut links into short segments, round the corners, bend everything by a smooth warp, give radii and tones."""
    trunk = np.asarray((links < anchors).all(axis=1))
    lengths = np.linalg.norm(points[links[:, 0]] - points[links[:, 1]], axis=1)
    cuts = np.where(trunk, 1, np.maximum(np.ceil(lengths / step_um), 2)).astype(np.int64)
    segments, parent, points = _subdivide(points, links, cuts)
    points = _round_corners(points, segments, anchors, rng)
    points = np.clip(_warp(points, plan, rng), 0.0, box_um)
    link_radius = plan.capillary_radius_um * np.clip(np.exp(rng.normal(scale=0.22, size=len(links))), 0.6, 1.7)
    tubes = np.stack([link_radius, link_radius], axis=1)
    tubes[trunk] = radii[links[trunk]]
    tubes = tubes[parent] * rng.uniform(0.92, 1.08, (len(parent), 1))
    link_tone = np.exp(rng.normal(scale=rng.uniform(0.1, 0.45), size=len(links)))
    link_tone[trunk] = np.exp(tones[links[trunk, 0]])
    ripple = np.where(trunk[parent], 0.03, rng.uniform(0.05, 0.35))
    brightness = link_tone[parent] * np.exp(ripple * rng.normal(size=len(parent)))
    return VesselNetwork(points, segments, tubes, brightness)


def _subdivide(points: FloatArray, links: IntArray, cuts: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Split link i into `cuts[i]` segments: (segments (S, 2), parent link (S,), points (P', 3))."""
    parent = np.repeat(np.arange(len(links)), cuts)
    order = np.arange(len(parent)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    fraction = order / cuts[parent]
    inner = order > 0
    new_index = np.cumsum(inner) - 1 + len(points)
    start = np.where(inner, new_index, links[parent, 0])
    last = order == cuts[parent] - 1
    end = np.where(last, links[parent, 1], np.append(start[1:], 0))
    share = fraction[inner, None]
    added = points[links[parent[inner], 0]] * (1 - share) + points[links[parent[inner], 1]] * share
    return np.stack([start, end], axis=1), parent, np.concatenate([points, added])


def _round_corners(points: FloatArray, segments: IntArray, anchors: int, rng: np.random.Generator) -> FloatArray:
    """Laplacian smoothing along the graph; the first `anchors` points (trunks) stay."""
    ends = np.concatenate([segments, segments[:, ::-1]])
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(points), len(points))).tocsr()
    degree = np.asarray(graph.sum(axis=1)).ravel()[:, None]
    movable = (np.arange(len(points)) >= anchors)[:, None] & (degree > 1)
    for _ in range(int(rng.integers(3, 12))):
        points = np.where(movable, 0.5 * points + 0.5 * (graph @ points) / np.maximum(degree, 1), points)
    return points


def _warp(points: FloatArray, plan: GrowthPlan, rng: np.random.Generator) -> FloatArray:
    """Displace points by a sum of plane waves of 25-200 µm, which adds tortuosity and keeps junctions connected."""
    moved = points.copy()
    for wavelength_um in (25.0, 40.0, 70.0, 120.0, 200.0):
        for _ in range(2):
            direction = rng.normal(size=3)
            wave = 2 * np.pi / wavelength_um * direction / np.linalg.norm(direction)
            push = rng.normal(size=3) * np.array([1.0, 1.0, 0.5])
            amplitude = plan.tortuosity * 0.05 * wavelength_um
            moved += amplitude * push * np.sin(points @ wave + rng.uniform(0, 2 * np.pi))[:, None]
    return moved

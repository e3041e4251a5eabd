"""A pool of synthetic volumes on disk, and training patches drawn from it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .generator import HIDDEN, draw_spacing, generate
from .imaging import smooth_noise

Shape = tuple[int, int, int]
CLIP_PERCENTILES = (1.0, 99.5)
LOWEST_CONTRAST = 1.5


class VolumePool:
    """Synthetic volumes 0..count-1 in `folder`; `workers` processes generate them during training."""

    def __init__(self, folder: Path, count: int, shape: Shape, seed: int, workers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.count = folder, count
        self._processes = ProcessPoolExecutor(max(workers, 1), mp_context=multiprocessing.get_context("spawn"))
        self._growing = {
            index: self._processes.submit(_store_volume, index, folder, shape, seed)
            for index in range(count)
            if not _member(folder, index).exists()
        }

    def ready(self) -> int:
        """Number of volumes that are on disk."""
        return self.count - sum(not growing.done() for growing in self._growing.values())

    def read(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Wait for a volume and return its image and target (X, Y, Z)."""
        if index in self._growing:
            self._growing[index].result()
        with np.load(_member(self.folder, index)) as member:
            return member["image"].astype(np.float32), member["target"]

    def close(self) -> None:
        """Stop the workers."""
        self._processes.shutdown(cancel_futures=True)


def _member(folder: Path, index: int) -> Path:
    return folder / f"volume_{index:05d}.npz"


def _store_volume(index: int, folder: Path, shape: Shape, seed: int) -> None:
    rng = np.random.default_rng([seed, index])
    slices = int(rng.integers(5, 17)) if rng.random() < 0.35 else shape[2]
    spacing_um = draw_spacing(rng)
    volume = generate(
        (shape[0], shape[1], min(slices, shape[2])), spacing_um, rng, margin_um=float(rng.uniform(5.0, 30.0))
    )
    target = volume.label.astype(np.uint8) + volume.centreline.astype(np.uint8)
    target[volume.label & ~volume.visible] = HIDDEN
    partial_file = folder / f".{index:05d}.tmp.npz"
    np.savez_compressed(partial_file, image=volume.image.astype(np.uint16), target=target)
    partial_file.rename(_member(folder, index))


def normalise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The card's intensity steps: clip at the 1st and 99.5th percentiles, then rescale to 0..1."""
    low, high = np.percentile(image, CLIP_PERCENTILES)
    return np.asarray(np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0), dtype=np.float32)


def draw_batch(
    pool: VolumePool, available: int, patch: Shape, batch: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw patches of the first `available` volumes: images (N, 1, *patch) in 0..1, targets (N, *patch) of 0 to 3."""
    pairs = [augment(*_draw_visible(pool, available, rng), patch, rng) for _ in range(batch)]
    pictures, targets = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return torch.from_numpy(pictures[:, None]), torch.from_numpy(targets)


def _draw_visible(
    pool: VolumePool, available: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw a volume with visible vessels; after eight attempts, any volume."""
    for _ in range(8):
        image, target = pool.read(int(rng.integers(available)))
        if contrast_to_noise(image[::2, ::2], target[::2, ::2]) >= LOWEST_CONTRAST:
            break
    return image, target


def contrast_to_noise(image: NDArray[np.float32], target: NDArray[np.uint8]) -> float:
    """Return vessel mean minus background mean over the background's deviation, normalised; real: 1.7-16.5."""
    picture, vessel = normalise(image), (target > 0) & (target < HIDDEN)
    if not (target == 0).any() or not vessel.any():
        return 0.0
    background = picture[target == 0]
    return float((picture[vessel].mean() - background.mean()) / (background.std() + 0.02))


def light_slope(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a gain of at most 1 that falls exponentially across the patch."""
    slopes = [np.linspace(-0.5, 0.5, size, dtype=np.float32) * np.float32(rng.normal(scale=1.0)) for size in shape]
    exponent = slopes[0][:, None, None] + slopes[1][None, :, None] + slopes[2][None, None, :]
    return np.asarray(np.exp(exponent - exponent.max()), dtype=np.float32)


def glow(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return light without edges that is no vessel: a smooth field, zero in a part of the patch, up to about 1."""
    breadth = float(np.exp(rng.uniform(np.log(25.0), np.log(150.0))))
    field = smooth_noise(shape, (breadth, breadth, max(breadth / 8.0, 2.0)), rng)
    return np.asarray(np.clip(0.4 * (field - rng.uniform(-0.5, 1.0)), 0.0, None), dtype=np.float32)


def augment(
    image: NDArray[np.float32], target: NDArray[np.uint8], patch: Shape, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw a random patch, edge-padded if the volume is small, flipped and transposed, with jittered contrast."""
    picture = image[::3, ::3]
    low = np.percentile(picture, rng.choice([0.5, 1.0, 1.0, 3.0]))
    high = np.percentile(picture, rng.choice([98.5, 99.5, 99.5, 99.8]))
    start = [int(rng.integers(0, max(size - edge, 0) + 1)) for size, edge in zip(image.shape, patch, strict=True)]
    window = tuple(slice(first, first + edge) for first, edge in zip(start, patch, strict=True))
    image, target = image[window], target[window]
    image = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    if rng.random() < 0.5:
        image = image ** np.exp(rng.normal(scale=0.3))
    if rng.random() < 0.4:
        image = np.clip(image * np.exp(rng.uniform(-1.2, 0.4)) + rng.uniform(0.0, 0.05), 0.0, 1.0)
    if rng.random() < 0.4:
        image = image * light_slope(image.shape, rng)
    if rng.random() < 0.35:
        image = np.clip(image + np.exp(rng.uniform(np.log(0.02), np.log(0.6))) * glow(image.shape, rng), 0.0, 1.0)
    turns = int(rng.integers(4))
    image, target = np.rot90(image, turns), np.rot90(target, turns)
    for axis in range(3):
        if rng.random() < 0.5:
            image, target = np.flip(image, axis), np.flip(target, axis)
    short = [edge - size for size, edge in zip(image.shape, patch, strict=True)]
    before = [int(rng.integers(0, gap + 1)) for gap in short]
    pad = [(first, gap - first) for first, gap in zip(before, short, strict=True)]
    return np.pad(image, pad, mode="edge").astype(np.float32), np.pad(target, pad, mode="edge").astype(np.int64)

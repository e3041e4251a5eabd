"""Plan the tiles of a run within its limits of memory and scratch space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from ....domain.cards.model_card import ModelCard
from ....domain.errors import LimitError, UsageError
from ....domain.geometry.grid import Shape3, shape3
from ....domain.geometry.model_space import ModelSpace
from ....domain.inference.patches import TilePlan, Tiling, plan_tiles
from ....domain.inference.sliding_window import slab_bytes
from ....domain.run import AXES, LARGEST_OVERLAP, RunOptions
from ....ports.resources import Resources
from ..inference import Fixed3

# Rows of tiles along an axis from which visiting it saves memory.
_SEVERAL_ROWS = 4
# Share of the free memory and scratch space; the rest is for the network's activations and for other processes.
_FREE_SHARE = 0.5


class TakesPatches(Protocol):
    """The fixed sizes (x, y, z) of a network's input, None where free, its patches per call, and the tuned patch."""

    @property
    def fixed(self) -> Fixed3: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def patch(self) -> Shape3 | None: ...  # noqa: D102


def planned(
    card: ModelCard,
    space: ModelSpace,
    inferer: TakesPatches,
    options: RunOptions,
    axes: Sequence[int],
    resources: Resources | None,
    scratch_bytes: float | None,
    reading_bytes: int = 0,
    more_channels: int = 0,
) -> tuple[TilePlan, float, int, tuple[str, ...]]:
    """Return plan, overlap, stitching bytes and notes, with the card's patch if the tuned one does not fit.

    ``reading_bytes``: memory that sources take while they are read; it counts as stitching bytes. ``more_channels`` are
    blended beside the logits. Without ``resources``, memory does not limit the plan.
    """
    if inferer.patch is not None and options.patch is None:
        with suppress(LimitError):
            patched = replace(options, patch=inferer.patch)
            return planned(card, space, inferer, patched, axes, resources, scratch_bytes, reading_bytes, more_channels)
    tiling = _tiling(card.tiling, options, inferer.fixed, space.grid.shape)
    plan = plan_tiles(space.grid.shape, tiling, fixed=inferer.fixed)
    plan = replace(plan, axis=_visiting_axis(plan, axes) if options.axis is None else AXES.index(options.axis))
    if resources is None:
        return plan, tiling.overlap, 0, ()

    def needed(plan: TilePlan, *, has_buffers: bool = False) -> int:
        channels, classes = len(card.input.channels), card.output.channels + more_channels
        slab = slab_bytes(
            plan, channels, classes, batch=inferer.batch, assembled=space.resamples, has_buffers=has_buffers
        )
        # A mirror image of a batch, its logits, and the sum of them.
        images = inferer.batch * math.prod(plan.tile) * (channels + 2 * classes) * 4 if card.tiling.mirror else 0
        return reading_bytes + slab + images + space.resampling_bytes(plan.axis, channels, card.output, classes)

    in_memory = partial(needed, has_buffers=scratch_bytes is not None)
    plan, size_bytes, notes = _within_memory(plan, options, in_memory, resources)
    if scratch_bytes is not None and (outside := needed(plan) - size_bytes) > scratch_bytes * _FREE_SHARE:
        raise LimitError(
            "scratch space",
            expected=f"at most {size(scratch_bytes * _FREE_SHARE)} for a run, half of what is free",
            got=size(outside),
            do="check the spacing of the volume, crop it, set a smaller `patch`, or free space in the scratch folder",
        )
    return plan, tiling.overlap, size_bytes, notes


def _visiting_axis(plan: TilePlan, axes: Sequence[int]) -> int:
    """Return the first of these axes with several rows of tiles, else the one with most: memory holds one row."""
    rows = [len(plan.starts[axis]) for axis in axes]
    return next((axis for axis, n in zip(axes, rows, strict=True) if n >= _SEVERAL_ROWS), axes[rows.index(max(rows))])


def _tiling(tiling: Tiling, options: RunOptions, fixed: Fixed3, shape: Shape3) -> Tiling:
    if options.overlap is not None:
        if not 0 <= options.overlap <= LARGEST_OVERLAP:
            raise UsageError(
                "overlap",
                expected=f"a fraction from 0 to {LARGEST_OVERLAP}",
                got=f"{options.overlap:g}",
                do="0.5 is usual",
            )
        tiling = replace(tiling, overlap=options.overlap)
    if options.patch is not None:
        edges = zip(options.patch, tiling.divisors, fixed, strict=True)
        if any(only is None and (edge < 1 or edge % divisor) for edge, divisor, only in edges):
            raise UsageError(
                "patch",
                expected=f"positive multiples of the model's divisor {tiling.divisor}",
                got=",".join(map(str, options.patch)),
                do="round the edges",
            )
        if any(only not in (None, edge) for only, edge in zip(fixed, options.patch, strict=True)):
            raise UsageError(
                "patch",
                expected=f"the one size that this network takes, {','.join(map(str, fixed))}",
                got=",".join(map(str, options.patch)),
                do="leave it out",
            )
        tiling = replace(tiling, patch=_shrunk(options.patch, tiling, shape))
    return tiling if options.blending is None else replace(tiling, blending=options.blending)


def _shrunk(patch: Shape3, tiling: Tiling, shape: Shape3) -> Shape3:
    """A run's own patch, where volumes are padded to the card's: a larger one does not pad them further."""
    if tiling.padding.to != "patch":
        return patch
    least = [max(edge or 0, length) for edge, length in zip(tiling.patch, tiling.rounded(shape), strict=True)]
    return shape3(map(min, patch, least))


def _within_memory(
    plan: TilePlan, options: RunOptions, bytes_of: Callable[[TilePlan], int], resources: Resources
) -> tuple[TilePlan, int, tuple[str, ...]]:
    stated, free = options.memory_bytes, free_bytes(options.memory_bytes, resources)
    needed = bytes_of(plan)
    if needed <= free:
        return plan, needed, ()
    halo = replace(plan, blending="halo")
    in_halo = bytes_of(halo)
    if options.blending is None and in_halo <= free:
        note = (
            f"blending changed from {plan.blending} to halo: blended sums would take {size(needed)}, "
            f"{size(max(free, 0))} are free for them"
        )
        return halo, in_halo, (note,)
    if stated is None and options.blending is not None:
        return plan, needed, (f"this run wants {size(needed)}, more than the {size(free)} set aside for it",)
    least = needed if options.blending is not None else min(needed, in_halo)
    raise LimitError(
        "memory" if stated is not None else "free memory",
        expected=f"at least {size(least if stated is None else least + stated - free)}",
        got=size(stated) if stated is not None else f"{size(free)} free",
        do="raise the limit, or set a smaller `patch`",
    )


def free_bytes(memory_bytes: int | None, resources: Resources) -> int:
    """Return the memory for blending: what ``memory_bytes`` leaves, or half of the free memory without a limit."""
    if memory_bytes is None:
        return int(resources.available_bytes() * _FREE_SHARE)
    return memory_bytes - resources.resident_bytes()


def memory_limit(runs: int, resources: Resources) -> int | None:
    """Return ``memory_bytes`` for each of ``runs`` concurrent runs without a stated limit; None for one."""
    share = int(resources.available_bytes() * _FREE_SHARE) // runs
    return None if runs == 1 else share + resources.resident_bytes()


def size(count: float) -> str:
    """Format a number of bytes, e.g. ``1.50 GB``."""
    for unit in ("B", "KB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"

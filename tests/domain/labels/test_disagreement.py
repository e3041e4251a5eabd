"""The disagreement of patches is the distance of their predictions, weighted as in blending; 0 where they agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from voxport.domain.inference.patches import TilePlan, Tiling, plan_tiles
from voxport.domain.inference.sliding_window import stitch
from voxport.domain.labels.disagreement import Disagreement
from voxport.domain.labels.label_map import Label, LabelTable, Logits, Output
from voxport.domain.run import Blending

ONE = LabelTable((Label(1, "vessel"),))
TWO = LabelTable((Label(1, "vessel"), Label(2, "soma")))
OUTPUTS = {
    "two classes": Output("softmax", ONE, background=True, found=2),
    "warm": Output("softmax", ONE, background=True, found=2, temperature=1.7),
    "three classes": Output("softmax", TWO, background=True, found=3),
    "two labels": Output("sigmoid", TWO, background=False, found=2),
    "probabilities": Output("none", TWO, background=True, found=3),
    "probabilities of labels": Output("none", TWO, background=False, found=2),
}


def emitted(output: Output, logits: Logits) -> Logits:
    """What a network with such an output emits."""
    if output.activation != "none":
        return logits
    return Output("sigmoid" if output.background is False else "softmax", TWO).probabilities(logits)


def shares_of(output: Output, values: Logits) -> NDArray[np.float64]:
    """Probabilities ``(..., L, 2 or K, x, y, z)``: of each label and its absence, or of all classes."""
    shares = values.astype(np.float64)
    if output.activation == "softmax":
        powers = np.exp((shares - shares.max(axis=0)) / output.temperature)
        shares = powers / powers.sum(axis=0)
    elif output.activation == "sigmoid":
        shares = 1 / (1 + np.exp(-shares))
    return np.stack([shares, 1 - shares], axis=1) if output.background is False else shares[np.newaxis]


def distance(output: Output, patches: list[Logits], weights: list[float]) -> NDArray[np.float64]:
    """By definition: of logits a weighted geometric mean, of probabilities the divergence of Jensen and Shannon."""
    shares, parts = [shares_of(output, patch) for patch in patches], np.array(weights) / sum(weights)
    if output.activation == "none":

        def entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(-(share * np.log(share)).sum(axis=1).sum(axis=0))

        mean = sum(part * share for part, share in zip(parts, shares, strict=True))
        gap = entropy(np.asarray(mean)) - sum(part * entropy(s) for part, s in zip(parts, shares, strict=True))
        return np.asarray(np.sqrt(1 - np.exp(-np.maximum(gap, 0))))
    means = np.exp(sum(part * np.log(share) for part, share in zip(parts, shares, strict=True)))
    return np.asarray(np.sqrt(np.maximum(0, 1 - np.asarray(means).sum(axis=1).prod(axis=0))))


def blended(output: Output, plan: TilePlan, tiles: list[Logits]) -> Logits:
    """Disagreement of tiles that are inferred one after the other."""
    doubt, left = Disagreement(output), iter(tiles)

    class Inferred:
        def __init__(self, logits: Logits) -> None:
            self._logits = logits

        def result(self) -> Logits:
            return self._logits

    begin = doubt.beside(lambda _: Inferred(next(left)[np.newaxis]))
    planes = (
        np.zeros((1, *(plan.shape[axis] for axis in plan.across)), np.float32) for _ in range(plan.shape[plan.axis])
    )
    found = np.full((output.channels + 1, *plan.shape), np.nan, np.float32)
    for block in stitch(plan, planes, begin):
        found[:, *block.box.slices] = doubt.settled(block.logits)
    return found


@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_it_is_what_its_definition_gives_for_every_voxel(name: str, blending: Blending) -> None:
    output, random = OUTPUTS[name], np.random.default_rng(3)
    plan = plan_tiles((9, 7, 6), Tiling((5, 4, 4), overlap=0.5, blending=blending))
    starts = list(product(*(range(len(plan.starts[axis])) for axis in (plan.axis, *plan.across))))
    tiles = [emitted(output, random.normal(0, 2, (output.channels, 5, 4, 4)).astype(np.float32)) for _ in starts]
    found = blended(output, plan, tiles)
    at = [
        {axis: plan.starts[axis][i] for axis, i in zip((plan.axis, *plan.across), index, strict=True)}
        for index in starts
    ]
    for voxel in product(*map(range, plan.shape)):
        patches, weights = [], []
        for start, tile in zip(at, tiles, strict=True):
            inside = tuple(voxel[axis] + plan.pad_before[axis] - start[axis] for axis in range(3))
            if all(0 <= place < edge for place, edge in zip(inside, plan.tile, strict=True)):
                x, y, z = inside
                patches.append(tile[:, x, y, z].reshape(-1, 1, 1, 1))
                weights.append(float(np.prod([plan.weights(axis)[place] for axis, place in enumerate(inside)])))
        expected = distance(output, patches, weights).item()
        assert found[-1][voxel] == pytest.approx(expected, abs=3e-3), voxel
        if len(patches) == 1:
            assert found[-1][voxel] == 0
    assert found[-1].max() > 0.3
    assert Disagreement.of(output, plan) is not None
    assert Disagreement.of(output, replace(plan, blending="halo")) is None


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 5e4])
def test_patches_that_agree_do_not_disagree_by_rounding(name: str, size: float) -> None:
    """Of logits of any size, in any number of patches of any weight."""
    output, shape = OUTPUTS[name], (11, 10, 9)
    plan = plan_tiles(shape, Tiling((5, 4, 4), overlap=0.75))
    whole = np.random.default_rng(1).normal(0, size, (output.channels, *plan.padded)).astype(np.float32)
    whole = emitted(output, whole)
    tiles = []
    for index in product(*(range(len(plan.starts[axis])) for axis in (plan.axis, *plan.across))):
        start = {axis: plan.starts[axis][i] for axis, i in zip((plan.axis, *plan.across), index, strict=True)}
        x, y, z = (slice(start[axis], start[axis] + plan.tile[axis]) for axis in range(3))
        tiles.append(whole[:, x, y, z])
    assert blended(output, plan, tiles)[-1].max() == 0


def test_two_patches_have_their_hellinger_distance() -> None:
    """Of probabilities 0.1 and 0.9: the root of 1 - 2 sqrt(0.09) is 0.632. Of certain opposites: 1."""
    output, logit = OUTPUTS["two classes"], float(np.log(9))
    doubt = Disagreement(output)
    tiles = np.array([[[0, 0], [logit, 1e5]], [[0, 0], [-logit, -1e5]]], np.float32)[..., np.newaxis, np.newaxis]

    class Inferred:
        def result(self) -> Logits:
            return tiles

    appended = doubt.beside(lambda _: Inferred())(tiles).result()
    settled = doubt.settled(appended.mean(axis=0))
    np.testing.assert_allclose(settled[-1].ravel(), [np.sqrt(1 - 0.6), 1], atol=1e-4)
    np.testing.assert_array_equal(settled[:-1], tiles.mean(axis=0))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_it_is_the_mean_divergence_that_scipy_gives(classes: int) -> None:
    """Of three patches of equal weight at 200 voxels, from soft-max."""
    table = LabelTable(tuple(Label(value, f"label {value}") for value in range(1, classes)))
    doubt = Disagreement(Output("softmax", table, background=True, found=classes))
    patches = np.random.default_rng(2).normal(0, 2, (3, classes, 200, 1, 1)).astype(np.float32)

    class Inferred:
        def result(self) -> Logits:
            return patches

    appended = doubt.beside(lambda _: Inferred())(patches).result()
    found = doubt.settled(appended.mean(axis=0))[-1].ravel()
    shares = special.softmax(patches.astype(np.float64), axis=1)
    blended = special.softmax(patches.astype(np.float64).mean(axis=0), axis=0)
    divergence = np.mean([stats.entropy(blended, share, axis=0) for share in shares], axis=0).ravel()
    np.testing.assert_allclose(found, np.sqrt(1 - np.exp(-divergence)), atol=1e-3)

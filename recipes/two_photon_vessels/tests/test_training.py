from pathlib import Path

import numpy as np
import pytest
import torch

from ..__main__ import main
from ..evaluate import load_network
from ..losses import vessel_loss
from ..metrics import cl_dice, dice, surface_dice
from ..model import fold, unfold
from ..pool import augment, contrast_to_noise, light_slope, normalise
from ..train import SMOKE, train


def test_the_smoke_run_leaves_weights_that_score_a_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--smoke", "--out", str(tmp_path), "--workers", "1"])
    weights = Path(capsys.readouterr().out.strip())
    assert weights == tmp_path / "model.pt"
    logits = load_network(weights)(torch.rand(1, 1, 32, 48, 8))
    assert logits.shape == (1, 2, 32, 48, 8)


def test_a_finished_run_resumes_at_its_end(tmp_path: Path) -> None:
    first = torch.load(train(SMOKE, tmp_path, workers=1), weights_only=True)
    second = torch.load(train(SMOKE, tmp_path, workers=1), weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_folding_and_unfolding_restore_a_picture() -> None:
    picture = torch.rand(2, 3, 16, 32, 4)
    assert fold(picture, 4).shape == (2, 48, 4, 8, 4)
    assert torch.equal(unfold(fold(picture, 4), 4), picture)


def test_a_light_slope_only_dims() -> None:
    gain = light_slope((8, 6, 4), np.random.default_rng(3))
    assert gain.shape == (8, 6, 4)
    assert gain.max() == pytest.approx(1.0)
    assert gain.min() > 0


def test_contrast_to_noise_falls_when_noise_rises() -> None:
    target = np.zeros((32, 32, 8), np.uint8)
    target[12:20] = 1
    rng = np.random.default_rng(0)
    noise = rng.normal(size=target.shape).astype(np.float32)
    assert contrast_to_noise(target + 0.05 * noise, target) > contrast_to_noise(target + 1.0 * noise, target)


def test_the_loss_is_lowest_where_the_logits_agree_with_the_target() -> None:
    target = torch.zeros(1, 16, 16, 4, dtype=torch.long)
    target[:, 4:8], target[:, 6, 8, 2] = 1, 2
    vessel = torch.where(target > 0, 8.0, -8.0)
    right = torch.stack([-vessel, vessel], dim=1)
    assert vessel_loss(right, target) < 0.01 < vessel_loss(-right, target)


def test_a_missed_centreline_costs_more_than_a_missed_edge() -> None:
    target = torch.ones(1, 16, 16, 4, dtype=torch.long)
    target[:, 8] = 2
    certain = torch.full((1, 2, 16, 16, 4), 8.0)
    certain[:, 0] = -8.0
    losses = []
    for row in (8, 2):
        logits = certain.clone()
        logits[:, :, row] *= -1
        losses.append(float(vessel_loss(logits, target)))
    assert losses[0] > losses[1]


def test_normalised_intensities_do_not_depend_on_gain_and_offset() -> None:
    image = np.random.default_rng(0).gamma(2.0, size=(32, 32, 8)).astype(np.float32)
    np.testing.assert_allclose(normalise(image), normalise(image * 37 + 11), atol=1e-4)


def test_a_small_volume_is_padded_to_the_patch_with_its_edge() -> None:
    rng = np.random.default_rng(0)
    image, target = augment(np.ones((20, 24, 5), np.float32), np.ones((20, 24, 5), np.uint8), (32, 32, 8), rng)
    assert image.shape == target.shape == (32, 32, 8)
    assert (target == 1).all()


def test_measures_are_one_for_equal_masks_and_fall_with_disagreement() -> None:
    mask = np.zeros((24, 24, 8), dtype=bool)
    mask[8:13, 2:22, 2:5] = True
    shifted = np.roll(mask, 6, axis=0)
    for measure in (dice, cl_dice, surface_dice):
        assert measure(mask, mask) == pytest.approx(1.0)
        assert measure(mask, shifted) < 0.3

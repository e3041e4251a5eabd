from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from voxport.contract.card import read_card

from ..__main__ import main
from ..losses import vessel_loss
from ..metrics import cl_dice, dice, surface_dice
from ..model import CONTEXT, DIVISOR, StandardisedConv, VesselNet, fold, load_network, unfold
from ..pool import augment, contrast_to_noise, glow, light_slope, normalise
from ..train import SMOKE, train


def test_the_smoke_run_leaves_weights_that_score_a_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--smoke", "--out", str(tmp_path), "--workers", "1"])
    weights, integers = map(Path, capsys.readouterr().out.split())
    assert (weights, integers) == (tmp_path / "model.pt", tmp_path / "int8.pt")
    logits = load_network(weights)(torch.rand(1, 1, 32, 48, 8))
    assert logits.shape == (1, 2, 32, 48, 8)


def test_a_finished_run_resumes_at_its_end(tmp_path: Path) -> None:
    first = torch.load(train(SMOKE, tmp_path, workers=1), weights_only=True)
    second = torch.load(train(SMOKE, tmp_path, workers=1), weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_with_its_standardisation_folded_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    network = VesselNet((8, 8, 16, 16), standardised=True)
    for layer in network.modules():
        if isinstance(layer, StandardisedConv):
            torch.nn.init.uniform_(layer.gain, 0.5, 2.0)
    folded = network.folded()
    assert not any(isinstance(layer, StandardisedConv) for layer in folded.modules())
    picture = torch.rand(1, 1, 48, 32, 7)
    with torch.inference_mode():
        torch.testing.assert_close(folded(picture), network(picture), rtol=1e-5, atol=1e-5)


def test_weights_are_standardised_for_each_output() -> None:
    weights = StandardisedConv(6, 4, (3, 3, 1)).standardised()
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3, 4)), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights.square().sum(dim=(1, 2, 3, 4)), torch.full((4,), 2.0), rtol=1e-3, atol=0)


def test_a_logit_depends_on_no_voxel_beyond_the_context_of_the_card() -> None:
    """With positive weights, no gradient cancels. How far a voxel sees depends on its place in a cell of 16."""
    network = VesselNet((4, 4, 4, 4))
    for parameter in network.parameters():
        parameter.data.abs_()
    picture = torch.rand(1, 1, 336, 16, 17, requires_grad=True)
    reaches = []
    for x in range(160, 176):
        (gradient,) = torch.autograd.grad(network(picture)[0, 1, x, 8, 8], picture)
        reached = gradient[0, 0].nonzero()
        reaches.append((x - int(reached[:, 0].min()), int(reached[:, 0].max()) - x))
        assert (int(reached[:, 2].min()), int(reached[:, 2].max())) == (8 - CONTEXT[2], 8 + CONTEXT[2])
    assert np.max(reaches) == CONTEXT[0]


def test_the_card_states_the_context_and_the_divisor_of_the_network() -> None:
    card = read_card(yaml.safe_load((Path(__file__).parents[1] / "card.yaml").read_text(encoding="utf-8")))
    assert card.tiling.context == CONTEXT
    assert card.tiling.divisor == DIVISOR


def test_folding_and_unfolding_restore_a_picture() -> None:
    picture = torch.rand(2, 3, 16, 32, 4)
    assert fold(picture, 4).shape == (2, 48, 4, 8, 4)
    assert torch.equal(unfold(fold(picture, 4), 4), picture)


def test_a_light_slope_only_dims() -> None:
    gain = light_slope((8, 6, 4), np.random.default_rng(3))
    assert gain.shape == (8, 6, 4)
    assert gain.max() == pytest.approx(1.0)
    assert gain.min() > 0


def test_a_glow_has_no_edges() -> None:
    light = glow((96, 96, 12), np.random.default_rng(2))
    assert light.min() >= 0
    assert light.max() > 0.2
    assert np.abs(np.diff(light, axis=0)).max() < 0.1


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


def test_what_cannot_be_seen_costs_nothing() -> None:
    target = torch.zeros(1, 16, 16, 4, dtype=torch.long)
    target[:, 4:8], target[:, 12:] = 1, 3
    logits = torch.randn(1, 2, 16, 16, 4)
    otherwise = logits.clone()
    otherwise[:, :, 12:] *= -1
    torch.testing.assert_close(vessel_loss(logits, target), vessel_loss(otherwise, target))


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

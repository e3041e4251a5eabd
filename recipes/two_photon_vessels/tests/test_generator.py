import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..generator import draw_plan, draw_spacing, generate, visible_label
from ..vessels import GrowthPlan, grow_network

SHAPE = (96, 80, 12)
SPACING_UM = (1.0, 1.0, 5.0)
CAPILLARIES_ONLY = GrowthPlan(
    capillary_density=1e-3,
    capillary_radius_um=2.2,
    trunk_radii_um=(),
    trunk_in_plane=False,
    tortuosity=0.4,
    branch_rate=1.0,
)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(seed=seeds)
def test_image_and_labels_have_the_asked_shape_and_the_label_is_binary(seed: int) -> None:
    volume = generate(SHAPE, SPACING_UM, np.random.default_rng(seed))
    assert volume.image.shape == volume.label.shape == volume.centreline.shape == SHAPE
    assert volume.label.dtype == bool
    assert np.isfinite(volume.image).all()
    assert volume.image.min() >= 0
    assert 0 < volume.label.mean() < 0.9
    assert not (volume.centreline & ~volume.label).any()
    assert not (volume.visible & ~volume.label).any()


def test_the_same_seed_gives_the_same_volume() -> None:
    first, second = (generate(SHAPE, SPACING_UM, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)


def test_a_label_is_visible_where_it_is_brighter_than_the_noise_around_it() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((96, 64, 8), dtype=bool)
    label[20:23], label[70:73] = True, True
    image = rng.normal(size=label.shape).astype(np.float32)
    image[:48] += 2.0 * label[:48]
    visible = visible_label(image, label)
    assert visible[20:23].mean() > 0.95
    assert visible[70:73].mean() < 0.3
    assert not visible[~label].any()


def test_another_seed_gives_another_volume() -> None:
    first, second = (generate(SHAPE, SPACING_UM, np.random.default_rng(seed)) for seed in (5, 6))
    assert (first.image != second.image).any()
    assert (first.label != second.label).any()


@few
@given(seed=seeds)
def test_one_component_holds_nearly_all_vessel_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    volume = generate(SHAPE, draw_spacing(rng), rng)
    parts, _ = components(volume.label, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.max() / sizes.sum() >= 0.95


@few
@given(seed=seeds)
def test_every_segment_of_a_network_is_joined_to_every_other(seed: int) -> None:
    network = grow_network(np.array([150.0, 150.0, 60.0]), CAPILLARIES_ONLY, 4.0, np.random.default_rng(seed))
    ends = network.segments
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(network.points_um),) * 2)
    _, component = connected_components(graph, directed=False)
    assert len(np.unique(component[ends])) == 1


def test_capillary_radii_are_between_one_and_four_micrometres_with_a_median_near_the_plan() -> None:
    network = grow_network(np.array([300.0, 300.0, 120.0]), CAPILLARIES_ONLY, 4.0, np.random.default_rng(1))
    assert network.radii_um.min() > 1.0
    assert network.radii_um.max() < 4.2
    assert np.median(network.radii_um) == pytest.approx(2.2, abs=0.4)


def test_trunks_are_as_wide_as_planned() -> None:
    plan = GrowthPlan(1e-4, 2.2, (30.0,), True, 0.4, 0.0)
    network = grow_network(np.array([300.0, 300.0, 120.0]), plan, 4.0, np.random.default_rng(1))
    assert 20.0 < np.median(network.radii_um[network.radii_um > 10.0]) < 45.0


def test_a_tube_drawn_at_half_the_spacing_covers_twice_the_voxels_across() -> None:
    fractions = []
    for spacing in (1.0, 0.5):
        shape = (round(100 / spacing), round(100 / spacing), 10)
        fractions.append(
            np.mean(
                [
                    generate(shape, (spacing, spacing, 5.0), np.random.default_rng(seed)).label.mean()
                    for seed in range(8)
                ]
            )
        )
    assert 0.3 < fractions[1] / fractions[0] < 1.5


@given(seed=seeds)
@settings(deadline=None)
def test_spacing_and_plan_stay_within_what_microscopes_and_brains_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = draw_spacing(rng)
    assert x == y
    assert 0.3 <= x <= 5.0
    assert 1.0 <= z <= 10.0
    assert z >= x
    plan = draw_plan((288, 288, 20), (x, y, z), rng)
    assert 1.4 <= plan.capillary_radius_um <= 3.5
    assert all(radius <= max(50 * x, 6.5) for radius in plan.trunk_radii_um)

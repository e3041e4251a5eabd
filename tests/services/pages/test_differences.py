"""What differs between two label maps is drawn voxel by voxel, by its kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Shape3
from voxport.domain.viewing.pages import SliceFigure
from voxport.domain.viewing.slicing import PlaneView, at_an_edge
from voxport.domain.volume import Volume
from voxport.services.pages.differences import draw_differences

from tests.services.conftest import make_grid, noise

Draw = Callable[..., tuple[SliceFigure, ...]]


def pixels(png: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@pytest.fixture
def draw() -> Draw:
    def run(mask: NDArray[Any], truth: NDArray[Any], image: NDArray[Any] | None = None, cases: int = 1) -> Any:
        volumes, shape = MemoryStore(), mask.shape
        grid = make_grid((shape[0], shape[1], shape[2]), codes="LPS")
        if image is not None:
            size: Shape3 = image.shape
            volumes.put("image", Volume(image, make_grid(size)))
        below = None if image is None else "image"
        how: dict[str, Any] = {"volumes": volumes, "pictures": PngPictures(), "cases": cases}
        return draw_differences(grid, mask, truth, image=below, **how)

    return run


def labels(seed: int, shape: tuple[int, int, int] = (12, 11, 10)) -> NDArray[np.uint32]:
    return np.random.default_rng(seed).choice(np.array([0, 0, 0, 1, 2], np.uint32), shape)


def test_every_voxel_of_a_slice_is_of_its_kind(draw: Draw) -> None:
    mask, truth = labels(1), labels(2)
    mask[:, :6], truth[:, :6] = 1, 1
    found = draw(mask, truth, noise(mask.shape))
    assert {figure.plane for figure in found} == {"axial", "coronal", "sagittal"}
    for figure in found:
        view = PlaneView.of(make_grid((12, 11, 10), codes="LPS"), figure.plane)
        box = view.box(figure.index).slices
        a, b = view.display(mask[box]), view.display(truth[box])
        same = np.where(a == b, a, 0)
        kinds = [at_an_edge(same) & (same > 0), (a > 0) & (b == 0), (a == 0) & (b > 0), (a != b) & (a > 0) & (b > 0)]
        drawn = {layer.toggle: pixels(layer.png)[..., 3] == 255 for layer in figure.layers}
        for kind, wanted in enumerate(kinds):
            np.testing.assert_array_equal(drawn.get(kind, np.zeros(a.shape, bool)), wanted)
        assert len(np.unique(pixels(figure.grey)[..., 0])) > 20


def test_the_slice_of_a_label_is_where_most_of_it_differs(draw: Draw) -> None:
    truth = np.zeros((20, 20, 100), np.uint32)
    truth[:, :, :50] = 1
    mask = truth.copy()
    mask[3:9, 4:9, 77] = 1
    assert ("axial", 77) in {(figure.plane, figure.index) for figure in draw(mask, truth)}
    assert ("axial", 0) in {(figure.plane, figure.index) for figure in draw(truth, truth)}


def test_cases_share_the_room_of_a_page(draw: Draw) -> None:
    mask, truth = labels(1, (30, 30, 30)), labels(2, (30, 30, 30))
    assert len(draw(mask, truth)) > 20
    assert len(draw(mask, truth, cases=12)) == 2
    (single,) = draw(mask, truth, cases=1000)
    assert single.plane == "axial"


def test_empty_masks_without_an_image_are_black(draw: Draw) -> None:
    nothing = np.zeros((6, 5, 4), np.uint32)
    found = draw(nothing, nothing)
    assert found
    assert all(not figure.layers and not pixels(figure.grey)[..., :3].any() for figure in found)


def test_an_image_of_another_shape_is_refused(draw: Draw) -> None:
    with pytest.raises(InputError, match="as the truth has"):
        draw(labels(1), labels(2), noise((3, 3, 3)))


def test_an_image_that_is_not_finite_is_drawn(draw: Draw) -> None:
    image = noise((12, 11, 10))
    image[::2], image[1, 1, 1] = np.nan, np.inf
    assert draw(labels(1), labels(2), image)

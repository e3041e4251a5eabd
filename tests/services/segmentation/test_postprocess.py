"""A mask is postprocessed as the card says: before statistics, on the case's own grid, in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import CancelledError
from voxport.domain.labels.postprocessing import Changed, FillHoles, KeepLargest, Postprocessing, RemoveSmall
from voxport.domain.run import Outputs
from voxport.domain.volume import Volume
from voxport.services.segmentation.report import run_report
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid

SPACING = (0.5, 1.0, 2.0)


def card_with(*steps: Postprocessing) -> ModelCard:
    card = make_card()
    return replace(card, output=replace(card.output, postprocessing=steps))


def a_shell_and_specks() -> Volume:
    values = np.zeros((14, 12, 10), np.float32)
    values[2:9, 2:9, 2:9] = 1
    values[4:7, 4:7, 4:7] = 0
    values[11, 10, 1:3] = 1  # two voxels of a cubic millimetre
    values[12, 2, 8] = 1
    return Volume(values, make_grid((14, 12, 10), SPACING))


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIR"])
@pytest.mark.parametrize(
    ("steps", "changed", "voxels"),
    [
        ([KeepLargest((1,))], [Changed("keep_largest", (1,), 2, 3)], 343 - 27),
        ([RemoveSmall((1,), 2.0, "mm")], [Changed("remove_small", (1,), 1, 1)], 343 - 27 + 2),
        ([FillHoles((1,))], [Changed("fill_holes", (1,), 1, 27)], 343 + 3),
        (
            [FillHoles((1,)), KeepLargest((1,))],
            [Changed("fill_holes", (1,), 1, 27), Changed("keep_largest", (1,), 2, 3)],
            343,
        ),
    ],
)
def test_the_mask_and_its_statistics_are_those_after_the_steps(
    bench: Bench, codes: str, steps: Sequence[Postprocessing], changed: Sequence[Changed], voxels: int
) -> None:
    bench.volumes.put("scan", a_shell_and_specks().reoriented(codes))
    done = bench.segment(load(brighter_than(0.5), card_with(*steps)))
    assert done.postprocessing == tuple(changed)
    assert done.statistics[0].voxels == voxels == np.count_nonzero(bench.array())
    assert list(done.seconds) == ["read", "prepare", "score", "postprocess", "measure", "write"]


def test_probabilities_are_those_of_the_network(bench: Bench) -> None:
    bench.volumes.put("scan", a_shell_and_specks())
    for name, card in (("plain", make_card()), ("clean", card_with(FillHoles((1,)), KeepLargest((1,))))):
        bench.segment(load(brighter_than(0.5), card), outputs=Outputs(name, f"{name} probabilities"))
    np.testing.assert_array_equal(bench.array("plain probabilities"), bench.array("clean probabilities"))
    assert (bench.array("plain") != bench.array("clean")).sum() == 30


def test_the_report_says_what_each_step_changed_and_nothing_without_steps(bench: Bench) -> None:
    bench.volumes.put("scan", a_shell_and_specks())
    for card, expected in (
        (card_with(KeepLargest((1,))), [{"step": "keep_largest", "labels": [1], "components": 2, "voxels": 3}]),
        (make_card(), None),
    ):
        loaded = load(brighter_than(0.5), card)
        report = run_report(bench.segment(loaded), loaded, version="1", command="voxport")
        assert report.get("postprocessing") == expected
        assert ("postprocess" in report["seconds"]) == (expected is not None)


def test_a_run_stops_while_it_postprocesses(bench: Bench) -> None:
    class Stop(RecordingProgress):
        here = False

        def stage(self, name: str, tiles: int = 0) -> None:
            self.here = name == "postprocess"
            super().stage(name, tiles)

        def advance(self, tiles: int) -> None:
            if self.here:
                raise CancelledError
            super().advance(tiles)

    bench.volumes.put("scan", a_shell_and_specks())
    bench.progress = Stop()
    with pytest.raises(CancelledError):
        bench.segment(load(brighter_than(0.5), card_with(KeepLargest((1,)))))
    with pytest.raises(Exception, match="mask"):
        bench.volumes.get("mask")

"""Contract suite of `Segmenter`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..domain.errors import CancelledError, VoxportError
from ..domain.run import Outputs, RunOptions
from ..ports.segmenter import Segmenter
from ..ports.volume_store import VolumeStore
from .progress import RecordingProgress


class SegmenterContract:
    """Subclass and implement the hooks: a segmenter with a default model of one channel, and a case."""

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        """Return a segmenter whose default model is ready."""
        raise NotImplementedError

    @pytest.fixture
    def case(self) -> str:
        """Return a small volume of one channel."""
        raise NotImplementedError

    @pytest.fixture
    def volumes(self) -> VolumeStore:
        """Return a store that reads the case and the masks."""
        raise NotImplementedError

    @pytest.fixture
    def outputs(self, tmp_path: Path) -> Outputs:
        """Return names for the results."""
        return Outputs(str(tmp_path / "mask.nii.gz"))

    def test_the_default_model_is_offered_first(self, segmenter: Segmenter) -> None:
        offers = segmenter.offers()
        assert [offer.default for offer in offers] == [True] + [False] * (len(offers) - 1)
        assert len({offer.card.reference for offer in offers}) == len(offers)

    def test_the_card_of_an_offer_can_be_asked_for(self, segmenter: Segmenter) -> None:
        for offer in segmenter.offers():
            assert segmenter.card(offer.card.reference) == offer.card

    def test_an_unknown_model_is_an_error(self, segmenter: Segmenter, case: str, outputs: Outputs) -> None:
        unknown, progress = "never-was:1.0.0", RecordingProgress()
        with pytest.raises(VoxportError):
            segmenter.card(unknown)
        with pytest.raises(VoxportError):
            segmenter.estimate([case], unknown, RunOptions(), progress)
        with pytest.raises(VoxportError):
            segmenter.segment([case], unknown, outputs, RunOptions(), progress)

    def test_the_mask_lies_on_the_grid_of_the_case(
        self, segmenter: Segmenter, case: str, volumes: VolumeStore, outputs: Outputs
    ) -> None:
        report = segmenter.segment([case], None, outputs, RunOptions(), RecordingProgress())
        (entry,) = report["outputs"]
        with volumes.open(case) as scan, volumes.open(outputs.mask) as mask:
            assert mask.grid == scan.grid
            assert entry["sha256"] == mask.sha256()

    def test_the_report_names_the_model_and_the_callers_files(
        self, segmenter: Segmenter, case: str, outputs: Outputs
    ) -> None:
        default = segmenter.offers()[0].card
        report = segmenter.segment([case], default.reference, outputs, RunOptions(), RecordingProgress())
        assert (report["model"]["name"], report["model"]["version"]) == (default.name, default.version)
        assert [entry["name"] for entry in report["inputs"]] == [case]
        assert [entry["name"] for entry in report["outputs"]] == [outputs.mask]

    def test_an_estimate_counts_the_tiles_of_the_run(self, segmenter: Segmenter, case: str, outputs: Outputs) -> None:
        default = segmenter.offers()[0].card.reference
        for options in (RunOptions(), RunOptions(overlap=0.0)):
            found = segmenter.estimate([case], default, options, RecordingProgress())
            report = segmenter.segment([case], default, outputs, options, RecordingProgress())
            assert found.tiles == report["tiles"]["count"]
            assert found.seconds > 0
            assert found.peak_bytes > 0

    def test_a_case_that_does_not_fit_fails_in_the_estimate_as_in_the_run(
        self, segmenter: Segmenter, case: str, outputs: Outputs
    ) -> None:
        default, progress = segmenter.offers()[0].card.reference, RecordingProgress()
        with pytest.raises(VoxportError) as estimated:
            segmenter.estimate([case, case], default, RunOptions(), progress)
        with pytest.raises(VoxportError) as run:
            segmenter.segment([case, case], default, outputs, RunOptions(), progress)
        assert type(estimated.value) is type(run.value)

    def test_progress_receives_stages(self, segmenter: Segmenter, case: str, outputs: Outputs) -> None:
        progress = RecordingProgress()
        segmenter.segment([case], None, outputs, RunOptions(), progress)
        assert progress.stages

    def test_a_cancelled_run_leaves_no_mask(
        self, segmenter: Segmenter, case: str, volumes: VolumeStore, outputs: Outputs
    ) -> None:
        with pytest.raises(CancelledError):
            segmenter.segment([case], None, outputs, RunOptions(), RecordingProgress(cancel_after=0))
        with pytest.raises(VoxportError):
            volumes.open(outputs.mask)

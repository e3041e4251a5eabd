"""The places of most uncertainty hold the errors of the bundled model on volumes with true labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import voxport
from voxport.domain.geometry.grid import Box
from voxport.domain.labels.ranking import UncertaintyRanking

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize("name", ["burgess2014_lowerRes_hiSNR", "burgess2014_noisySparseVessels"])
def test_the_first_tenth_of_the_places_has_three_times_the_wrong_voxels_of_chance(real_data: Path, name: str) -> None:
    folder = real_data / "two_photon"
    with voxport.load() as predictor:
        found = predictor(folder / f"{name}_image.nii.gz", uncertainty=True)
    assert found.uncertainty is not None
    wrong = (found.labels.array > 0) != (np.asarray(nib.load(folder / f"{name}_label.nii.gz").dataobj) > 0)
    ranking = UncertaintyRanking(found.labels.grid)
    ranking.add(Box.whole(wrong.shape), found.uncertainty)
    left, held = wrong.size // 10, 0
    for box, _ in ranking.places():
        if (left := left - wrong[box.slices].size) < 0:
            break
        held += int(wrong[box.slices].sum())
    assert held >= 0.3 * wrong.sum()

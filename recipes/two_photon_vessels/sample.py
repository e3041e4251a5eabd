"""`python -m recipes.two_photon_vessels.sample OUT.nii.gz` generates the bundled sample volume from a seed."""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np

from .generator import Spacing, SyntheticVolume, generate

SHAPE = (256, 256, 24)
SPACING_UM: Spacing = (1.0, 1.0, 4.0)


def make_sample(seed: int) -> SyntheticVolume:
    """Generate a volume with a seed that no training run uses: theirs are pairs, this one is a triple."""
    return generate(SHAPE, SPACING_UM, np.random.default_rng([seed, 0, 2]), margin_um=20.0)


def write_volume(volume: SyntheticVolume, path: Path) -> None:
    """Write the image as 8-bit NIfTI with its spacing in µm; the brightest 0.1 % of the voxels saturate."""
    top = float(np.quantile(volume.image, 0.999))
    values = np.clip(volume.image / top * 255, 0, 255).astype(np.uint8)
    image = nibabel.Nifti1Image(values, np.diag([*volume.spacing_um, 1.0]))
    image.header.set_xyzt_units("micron")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)


def main(arguments: list[str] | None = None) -> None:
    """Write the sample."""
    parser = argparse.ArgumentParser(prog="recipes.two_photon_vessels.sample", description=make_sample.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=9)
    options = parser.parse_args(arguments)
    write_volume(make_sample(options.seed), options.out)


if __name__ == "__main__":
    main()

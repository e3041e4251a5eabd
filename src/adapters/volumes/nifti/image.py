"""Nibabel images in memory as volumes, with the values and the grid that their files would have."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from ....domain.errors import InputError
from ....domain.volume import Volume
from .header import read_header

_SUBJECT = "image"


def volume_of_image(image: Any) -> Volume:
    """Copy a NIfTI image of nibabel; the last axis of four is the channel.

    Raises:
        InputError: not a NIfTI image, or one whose file could not be segmented either.
    """
    if not isinstance(image, nib.Nifti1Pair):
        do = "give its array with affine= and unit=, or save it as NIfTI"
        raise InputError(_SUBJECT, expected="a NIfTI image of nibabel", got=type(image).__name__, do=do)
    stored = image.dataobj
    is_scaled = nib.is_proxy(stored) and hasattr(stored, "get_unscaled")
    raw = np.asanyarray(stored.get_unscaled() if is_scaled else stored)
    fields = _fields(image, raw)
    if is_scaled:
        fields["scl_slope"], fields["scl_inter"] = stored.slope, stored.inter
    header = read_header(fields.binaryblock, _SUBJECT)
    values = header.scaled(raw, "F")  # as in a file
    values = values.reshape((*header.grid.shape, header.channels), order="F")
    return Volume(np.moveaxis(values, -1, 0), header.grid)


def _fields(image: Any, raw: np.ndarray[Any, Any]) -> Any:
    """Return the header that the image's single file would have, without scaling. Raises InputError."""
    fields = image.header.copy()
    try:
        fields.set_data_dtype(raw.dtype)
    except nib.spatialimages.HeaderDataError:
        do = "convert its array to integers, float32 or float64"
        raise InputError(_SUBJECT, expected="real numbers", got=str(raw.dtype), do=do) from None
    fields.set_data_shape(image.shape)
    if image.affine is not None and not np.allclose(fields.get_best_affine(), image.affine):
        fields.set_sform(image.affine, code="aligned")
        fields.set_qform(image.affine, code="unknown")
    fields["magic"] = b"n+2" if isinstance(fields, nib.Nifti2Header) else b"n+1"
    fields["vox_offset"] = fields["sizeof_hdr"] + 4
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    return fields

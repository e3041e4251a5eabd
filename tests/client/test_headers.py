"""Headers of voxels in another file: one file on their way to a server."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from voxport.adapters.volumes.itk import ItkStore
from voxport.client import Client
from voxport.client.folders import pack_volume
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box

itk: Any = SimpleITK
VALUES: NDArray[Any] = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


def written(path: Path, compressed: bool = False) -> Path:
    image = itk.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.5, 2.0))
    itk.WriteImage(image, str(path), useCompression=compressed)
    return path


def packed(path: Path) -> bytes:
    file = io.BytesIO()
    assert pack_volume(path, file) == path.name
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_a_header_and_its_voxels_are_one_file_that_others_read(tmp_path: Path, ending: str, compressed: bool) -> None:
    given = written(tmp_path / f"scan{ending}", compressed)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "sent").mkdir()
    sent = tmp_path / "sent" / f"scan{ending}"
    sent.write_bytes(packed(given))
    image = itk.ReadImage(str(sent))
    np.testing.assert_array_equal(itk.GetArrayFromImage(image), VALUES)
    with ItkStore().open(str(given)) as first, ItkStore().open(str(sent)) as second:
        assert first.grid == second.grid


def test_lines_and_bytes_to_skip_are_still_skipped(tmp_path: Path) -> None:
    given = written(tmp_path / "scan.nhdr")
    given.write_text(given.read_text(encoding="utf-8").rstrip() + "\nline skip: 1\nbyte skip: 2\n", encoding="utf-8")
    (tmp_path / "scan.raw").write_bytes(b"a line\nxy" + VALUES.tobytes())
    (tmp_path / "one.nrrd").write_bytes(packed(given))
    with ItkStore().open(str(tmp_path / "one.nrrd")) as source:
        np.testing.assert_array_equal(source.read(Box.whole(source.grid.shape))[0], VALUES.T)


def test_a_header_with_its_voxels_in_it_is_sent_as_it_is(tmp_path: Path) -> None:
    given = written(tmp_path / "scan.mha").rename(tmp_path / "scan.mhd")
    assert packed(given) == given.read_bytes()


def _listed(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("scan.raw", "LIST\nscan.raw"), encoding="utf-8")


def _elsewhere(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("scan.raw", "../scan.raw"), encoding="utf-8")


def _behind_bytes(path: Path) -> None:
    path.write_text("HeaderSize = 3\n" + path.read_text(encoding="utf-8"), encoding="utf-8")


def _alone(path: Path) -> None:
    path.with_name("scan.raw").unlink()


@pytest.mark.parametrize("change", [_listed, _elsewhere, _behind_bytes, _alone], ids=lambda f: f.__name__)
def test_a_header_that_cannot_be_one_file_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    given = written(tmp_path / "scan.mhd")
    change(given)
    with pytest.raises(InputError, match=r"scan\.mhd: expected (voxels in one whole file|its voxels in scan\.raw)"):
        packed(given)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_both_files_reach_a_server(client: Client, tmp_path: Path, ending: str) -> None:
    one = client.segment(written(tmp_path / "one.mha"), tmp_path / "one.nii.gz")
    two = client.segment(written(tmp_path / f"scan{ending}"), tmp_path / "two.nii.gz", unit="mm")
    assert two["statistics"]["labels"][0]["voxels"] == one["statistics"]["labels"][0]["voxels"]

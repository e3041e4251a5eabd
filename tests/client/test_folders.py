"""Volumes that are folders: as zips on their way to a server, and back."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from voxport.client.errors import RemoteError
from voxport.client.folders import unzip_folder, zip_folder
from voxport.domain.errors import InputError

DICOM = b"\0" * 128 + b"DICM" + b"content"


class Pipe(io.RawIOBase):
    """A file that can only be written, from beginning to end."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.content += bytes(data)
        return len(data)


@pytest.fixture
def zarr(tmp_path: Path) -> Path:
    folder = tmp_path / "Scan.OME.zarr"
    (folder / "0" / "c").mkdir(parents=True)
    for name, content in {"zarr.json": b"{}", "0/zarr.json": b"{ }", "0/c/1": b"12", ".hidden": b""}.items():
        (folder / name).write_bytes(content)
    return folder


def zipped(folder: Path) -> tuple[str, bytes]:
    file = io.BytesIO()
    return zip_folder(folder, file), file.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_zarr_is_zipped_whole_without_a_folder_around_it(zarr: Path) -> None:
    name, content = zipped(zarr)
    assert name == "Scan.OME.zarr.zip"
    assert members(content) == {".hidden": b"", "0/c/1": b"12", "0/zarr.json": b"{ }", "zarr.json": b"{}"}


def test_an_image_inside_a_zarr_is_named_as_one(zarr: Path) -> None:
    assert zipped(zarr / "0")[0] == "image.zarr.zip"


def test_of_a_series_only_the_dicom_files_are_sent(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, content in {"b": DICOM, "deep/a.dcm": DICOM, "notes.txt": b"Mrs Smith", "short": b""}.items():
        (tmp_path / name).write_bytes(content)
    name, content = zipped(tmp_path)
    assert name == "series.zip"
    assert members(content) == {"b": DICOM, "deep/a.dcm": DICOM}


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(zarr: Path) -> None:
    before = zipped(zarr)
    (zarr / "zarr.json").write_bytes((zarr / "zarr.json").read_bytes())
    (zarr / "zarr.json").chmod(0o600)
    assert zipped(zarr) == before


def test_a_zip_can_be_written_to_a_pipe(zarr: Path) -> None:
    pipe = Pipe()
    zip_folder(zarr, pipe)  # type: ignore[arg-type]
    assert members(pipe.content) == members(zipped(zarr)[1])


def test_a_folder_of_other_files_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Mrs Smith", encoding="utf-8")
    with pytest.raises(InputError, match="expected a file, a DICOM series or an OME-Zarr, got a folder of other files"):
        zipped(tmp_path)


@pytest.mark.parametrize("target", ["0", "nothing"])
def test_a_link_that_would_leave_out_voxels_is_refused(zarr: Path, target: str) -> None:
    (zarr / "1").symlink_to(zarr / target)
    with pytest.raises(InputError, match="got a link to a folder, or to nothing"):
        zipped(zarr)


def test_what_was_zipped_is_unpacked_as_it_was(zarr: Path, tmp_path: Path) -> None:
    _, content = zipped(zarr)
    unzip_folder(io.BytesIO(content), tmp_path / "new", "http://server")
    again = {p.relative_to(tmp_path / "new").as_posix(): p.read_bytes() for p in (tmp_path / "new").rglob("*.json")}
    assert again == {"zarr.json": b"{}", "0/zarr.json": b"{ }"}


def archive(**options: object) -> bytes:
    name, kind = str(options.get("name", "a")), int(str(options.get("kind", zipfile.ZIP_STORED)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as made:
        made.writestr(name, b"a" * 100)
        made.writestr("b", b"b")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (archive(name="../a"), "a name outside"),
        (archive(name="/a"), "a name outside"),
        (archive(name="x/../../a"), "a name outside"),
        (archive(name="x\\..\\a"), "a name outside"),
        (archive(kind=zipfile.ZIP_DEFLATED), "compressed members"),
        (archive(name="b/c"), "a name that comes twice"),
        (archive()[:-30], "a damaged one"),
        (b"no zip", "a damaged one"),
        (archive().replace(b"aaaa", b"aaab", 1), "a damaged one"),
        (b"PK\x05\x06" + b"\0" * 18, "or none"),
    ],
)
def test_a_zip_that_is_no_folder_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, content: bytes, got: str
) -> None:
    with pytest.raises(RemoteError, match=got):
        unzip_folder(io.BytesIO(content), tmp_path / "x" / "new", "http://server")
    assert {path.name for path in tmp_path.iterdir()} <= {"x"}

"""Archives and folders from others."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from voxport.adapters.archives import file_inside, unpack
from voxport.domain.errors import ModelError


def zipped(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_unpacked_and_its_single_top_folder_entered(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", **{"top/configs/a.json": "{}", "top/models/m.pt": "w"})
    folder = tmp_path / "out"
    folder.mkdir()
    found = unpack(source, folder)
    assert found == folder / "top"
    assert (found / "models" / "m.pt").read_text(encoding="utf-8") == "w"


def test_a_zip_with_several_entries_is_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert unpack(zipped(tmp_path / "a.zip", **{"a/x": "", "b": ""}), folder) == folder


@pytest.mark.parametrize("name", ["../sprung", "a/../../sprung", "/tmp/sprung", "..\\sprung", "C:\\sprung", "c:sprung"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ModelError, match="leads out of the folder"):
        unpack(zipped(tmp_path / "a.zip", **{"before": "", name: "x"}), folder)
    assert not list(tmp_path.rglob("sprung"))
    assert not list(folder.iterdir())


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("weights")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", zeros="0" * 2**28)
    assert source.stat().st_size < 2**20
    with pytest.raises(ModelError, match="bytes in a zip of"):
        unpack(source, tmp_path / "out")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="twice"):
        unpack(zipped(tmp_path / "a.zip", a="", A=""), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ModelError, match="a whole zip archive"):
        unpack(tmp_path / "a.zip", tmp_path)


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", a="some content that is long enough " * 20)
    content = bytearray(source.read_bytes())
    content[40:60] = b"\xff" * 20
    source.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="a whole zip archive"):
        unpack(source, tmp_path / "out")


def test_a_link_out_of_a_folder_is_refused_and_one_within_it_followed(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "secret").write_text("s", encoding="utf-8")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "own").write_text("w", encoding="utf-8")
    (folder / "in").symlink_to(folder / "own")
    assert file_inside(folder, "in").read_text(encoding="utf-8") == "w"
    assert not file_inside(folder, "models", "absent").exists()
    for outside in ("out", "../secret", str(tmp_path / "secret")):
        with pytest.raises(ModelError, match="leads out of it"):
            file_inside(folder, outside)

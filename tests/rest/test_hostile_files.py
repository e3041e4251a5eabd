"""Uploads that name other files of the server, or promise far more than they hold, are refused in one line."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
import tifffile

SHAPE = (8, 9, 10)
STATED = {"spacing": "1,1,1", "unit": "mm", "axes": "ZYX", "series": "/raw"}
LARGEST_ANSWER_SECONDS = 20


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Voxels of the right number in a file of the server, in each format that a reference may want."""
    folder = tmp_path_factory.mktemp("secret")
    values = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
    (folder / "voxels.raw").write_bytes(values.tobytes())
    tifffile.imwrite(folder / "voxels.tif", values, photometric="minisblack")
    with h5py.File(folder / "voxels.h5", "w") as file:
        file["raw"] = values
    return folder


def mhd(secret: Path, _: Path) -> bytes:
    return (
        "ObjectType = Image\nNDims = 3\nDimSize = 10 9 8\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
        f"ElementDataFile = {secret}/voxels.raw\n"
    ).encode()


def mhd_above(secret: Path, folder: Path) -> bytes:
    return mhd(Path("../" * 20) / secret.relative_to("/"), folder)


def mhd_list(secret: Path, folder: Path) -> bytes:
    return mhd(secret, folder).replace(b"ElementDataFile = ", b"ElementDataFile = LIST\n")


def nhdr(secret: Path, _: Path) -> bytes:
    return (
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 9 8\nspace: left-posterior-superior\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\n"
        f"data file: {secret}/voxels.raw\n"
    ).encode()


def nhdr_list(secret: Path, folder: Path) -> bytes:
    return nhdr(secret, folder).replace(b"data file: ", b"data file: LIST\n")


def hdf5_link(secret: Path, folder: Path) -> bytes:
    with h5py.File(folder / "link.h5", "w") as file:
        file["raw"] = h5py.ExternalLink(str(secret / "voxels.h5"), "/raw")
    return (folder / "link.h5").read_bytes()


def hdf5_external(secret: Path, folder: Path) -> bytes:
    with h5py.File(folder / "external.h5", "w") as file:
        size = int(np.prod(SHAPE))
        file.create_dataset("raw", SHAPE, np.uint8, external=[(str(secret / "voxels.raw"), 0, size)])
    return (folder / "external.h5").read_bytes()


def hdf5_virtual(secret: Path, folder: Path) -> bytes:
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret / "voxels.h5"), "raw", SHAPE)
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    return (folder / "virtual.h5").read_bytes()


def ome_tiff(secret: Path, folder: Path) -> bytes:
    planes = "".join(
        f'<TiffData IFD="{z}" FirstZ="{z}" PlaneCount="1"><UUID FileName="{secret}/voxels.tif">urn:uuid:{z}</UUID>'
        "</TiffData>"
        for z in range(SHAPE[0])
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:own">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="10" SizeY="9" SizeZ="8" '
        'SizeC="1" SizeT="1" PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeZ="1"><Channel ID="Channel:0:0"/>'
        f"{planes}</Pixels></Image></OME>"
    )
    plane = np.zeros(SHAPE[1:], np.uint8)
    tifffile.imwrite(folder / "a.tif", plane, description=xml, metadata=None, photometric="minisblack")
    return (folder / "a.tif").read_bytes()


def zarr(secret: Path, _: Path, *, path: str | None = None, chunk: bytes = b"") -> bytes:
    array = {"zarr_format": 2, "shape": SHAPE, "chunks": SHAPE, "dtype": "|u1", "compressor": None, "fill_value": 0}
    axes = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    dataset = {"path": path or f"{secret}/0", "coordinateTransformations": scale}
    image = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [dataset]}]}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        archive.writestr(".zattrs", json.dumps(image))
        archive.writestr(f"{path or '0'}/.zarray", json.dumps({**array, "order": "C", "filters": None}))
        if chunk:
            archive.writestr(f"{path}/0.0.0", chunk)
    return file.getvalue()


def zarr_above(secret: Path, folder: Path) -> bytes:
    return zarr(secret, folder, path="../../0")


def dicom_links(secret: Path, _: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo("a.dcm")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, str(secret / "voxels.raw"))
        archive.writestr("b.dcm", b"\0" * 128 + b"DICM")
    return file.getvalue()


Maker = Callable[[Path, Path], bytes]
OTHERS: Mapping[str, tuple[str, Maker]] = {
    "mhd": ("a.mhd", mhd),
    "mhd above": ("a.mhd", mhd_above),
    "mhd list": ("a.mhd", mhd_list),
    "nhdr": ("a.nhdr", nhdr),
    "nhdr list": ("a.nhdr", nhdr_list),
    "hdf5 link": ("a.h5", hdf5_link),
    "hdf5 external": ("a.h5", hdf5_external),
    "hdf5 virtual": ("a.h5", hdf5_virtual),
    "ome-tiff": ("a.ome.tif", ome_tiff),
    "zarr": ("a.zarr.zip", zarr),
    "zarr above": ("a.zarr.zip", zarr_above),
    "dicom links": ("a.zip", dicom_links),
}


def refused(http: httpx.Client, name: str, content: bytes, route: str = "/v1/plan", **fields: str) -> dict[str, Any]:
    answer = http.post(route, files={"volume": (name, content)}, data=fields, timeout=LARGEST_ANSWER_SECONDS)
    problem: dict[str, Any] = answer.json()
    assert answer.status_code in (413, 422), answer.text
    assert problem["type"] in ("urn:voxport:problem:input", "urn:voxport:problem:limit"), problem
    assert "\n" not in problem["detail"]
    return problem


@pytest.mark.parametrize("route", ["/segment", "/v1/jobs"])
@pytest.mark.parametrize("kind", OTHERS)
def test_an_upload_cannot_name_another_file_of_the_server(
    http: httpx.Client, secret: Path, tmp_path: Path, kind: str, route: str
) -> None:
    name, make = OTHERS[kind]
    stated = {} if name.endswith((".zip", ".mhd", ".nhdr")) else STATED
    fields = {"spacing": "1,1,1", "unit": "mm"} if not stated and not name.endswith(".zip") else stated
    fields = {field: text for field, text in fields.items() if field != "series" or name.endswith(".h5")}
    refused(http, name, make(secret, tmp_path), route, **fields)


def test_the_two_files_of_a_pair_do_not_find_each_other(http: httpx.Client, secret: Path, tmp_path: Path) -> None:
    header = mhd(secret, tmp_path).replace(f"{secret}/voxels.raw".encode(), b"volume_2.raw")
    files = [("volume", ("a.mhd", header)), ("volume", ("a.raw", (secret / "voxels.raw").read_bytes()))]
    answer = http.post("/v1/plan", files=files, data={"model": "pair", "spacing": "1,1,1", "unit": "mm"})
    assert answer.status_code == 422
    assert "volume_1.mhd" in answer.json()["detail"]


def npy_bomb() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**5,) * 3})
    return file.getvalue() + b"\0" * 100


def tiff_bomb() -> bytes:
    """One page of 2^31 x 2^31 voxels, a strip of 10 bytes."""
    tags = [(256, 4, 2**31), (257, 4, 2**31), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 2**31)]
    tags = [*tags, (277, 3, 1), (279, 4, 10)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    return b"II*\0" + struct.pack("<I", 18) + b"\0" * 10 + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def nrrd_bomb() -> bytes:
    import gzip

    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 9 8\nspace: left-posterior-superior\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: gzip\n\n"
    )
    return header.encode() + gzip.compress(b"\0" * 2**26)


def zip_bomb(member: str, megabytes: int = 600) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as content:
        content.write(b"\0" * 128 + b"DICM")
        for _ in range(megabytes):
            content.write(b"\0" * 2**20)
    return file.getvalue()


def hdf5_bomb() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made.create_dataset("raw", (10**4,) * 3, np.uint8, chunks=(100, 100, 100), compression="gzip")
    return file.getvalue()


BOMBS: Mapping[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "npy": ("a.npy", npy_bomb, {"spacing": "1,1,1", "unit": "mm", "axes": "ZYX"}),
    "tiff": ("a.tif", tiff_bomb, {"spacing": "1,1,1", "unit": "mm", "axes": "YX"}),
    "nrrd": ("a.nrrd", nrrd_bomb, {"unit": "mm"}),
    "dicom": ("series.zip", lambda: zip_bomb("a.dcm"), {}),
    "zarr chunk": ("a.zarr.zip", lambda: zarr(Path("/"), Path("/"), path="0", chunk=b"\0" * 2**26), {}),
    "hdf5": ("a.h5", hdf5_bomb, STATED),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_grows_beyond_what_it_states_or_what_is_allowed_is_refused(http: httpx.Client, kind: str) -> None:
    name, make, fields = BOMBS[kind]
    refused(http, name, make(), **fields)


@pytest.mark.requirement("R-REFUSE")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_bomb("a.txt", megabytes=1)[:500]),
        ("a.tif", b"II*\0\x08\0\0\0\xff\xff"),
        ("a.nrrd", b"NRRD0004\ntype: uchar\n"),
        ("a.mha", b"ObjectType = Image\nNDims = 3\n"),
        ("a.mgz", b"\x1f\x8b\x08\0"),
        ("a.h5", b"\x89HDF\r\n\x1a\n"),
        ("a.npy", b"\x93NUMPY\x01\0"),
        ("a.npz", b"PK\x03\x04"),
        ("a.dcm", b"\0" * 128 + b"DICM"),
        ("a.dcm", b"hello"),
        ("a.czi", b"ZISRAWFILE"),
        ("a.zarr.zip", b"PK\x05\x06" + b"\0" * 18),
        ("hello.txt", b"hello"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(http: httpx.Client, name: str, content: bytes) -> None:
    problem = refused(http, name, content, unit="mm", spacing="1,1,1")
    assert problem["detail"].startswith("volume_1")

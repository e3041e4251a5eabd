"""Read and write 1024 x 1024 x 256 voxels in each format: seconds and peak memory, beside NIfTI's.

Each measurement runs in a process of its own. Reading goes once by planes across the slowest axis, as statistics do,
and once by one layer of boxes of 96 voxels an edge, as a sliding window does. Writing is of a label map by slabs.
Volumes of formats that are not written here are written by the library that users have.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from voxport.application import Application
from voxport.domain.geometry.grid import Box, Grid, shape3
from voxport.domain.reading import Reading

SPACING_UM = (0.5, 0.5, 2.0)
EDGE = 96
# Name in the table, and ending or, for what another library writes, its writer.
WRITTEN = {
    "NIfTI": ".nii",
    "NIfTI, gzip": ".nii.gz",
    "OME-TIFF": ".ome.tif",
    "OME-Zarr": ".ome.zarr",
    "NRRD": ".nrrd",
    "segmentation NRRD": ".seg.nrrd",
    "MetaImage": ".mha",
}
OTHERS = {"ImageJ TIFF": "imagej.tif", "HDF5, chunks": "chunks.h5", "NumPy": "plain.npy", "DICOM series": "series"}
STATED = Reading(spacing=SPACING_UM, unit="um", axes="ZYX")


def values(shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return smooth noise ``(z, y, x)``, which compresses about as scans do."""
    coarse = np.random.default_rng(0).integers(0, 256, [-(-edge // 4) for edge in shape[::-1]], np.uint16)
    fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: shape[2], : shape[1], : shape[0]]
    return fine + (np.arange(shape[0], dtype=np.uint16) % 7)


def place(file: Path, shape: tuple[int, int, int]) -> None:
    """Write a volume with the library of its format."""
    array = values(shape)
    if file.name == "imagej.tif":
        import tifffile

        tifffile.imwrite(
            file, array, imagej=True, resolution=(2.0, 2.0), metadata={"axes": "ZYX", "unit": "um", "spacing": 2.0}
        )
    elif file.suffix == ".h5":
        import h5py

        with h5py.File(file, "w") as opened:
            opened.create_dataset(
                "raw",
                data=array,
                chunks=tuple(min(64, edge) for edge in array.shape),
                compression="gzip",
                compression_opts=1,
            )
    elif file.suffix == ".npy":
        np.save(file, array)
    else:
        write_series(file, array)


def write_series(folder: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a DICOM series with SimpleITK."""
    import SimpleITK

    folder.mkdir()
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(array):
        image = SimpleITK.GetImageFromArray(plane[np.newaxis])
        image.SetSpacing([0.5, 0.5, 2.0])
        tags = {"0020|000e": "1.2.3", "0020|000d": "1.2", "0008|0060": "CT", "0020|0013": str(z)}
        tags |= {"0020|0032": f"0\\0\\{2.0 * z}", "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0018": f"1.2.3.{z + 1}"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:04d}.dcm"))
        writer.Execute(image)


def write(file: Path, shape: tuple[int, int, int]) -> float:
    """Write a label map through its store by slabs; return the seconds."""
    labels = (values((shape[0], shape[1], 64)) > 128).astype(np.uint8)
    grid = Grid(shape, np.diag([*SPACING_UM, 1.0]), "um")
    began = time.perf_counter()
    with Application.build().volumes.create(str(file), grid, np.dtype(np.uint8)) as sink:
        for z in range(0, shape[2], 4):
            box = Box.whole(shape).with_range(2, z, min(z + 4, shape[2]))
            sink.write(box, np.roll(labels[z % 64 : z % 64 + 4], z, axis=1).T)
        sink.commit()
    return time.perf_counter() - began


def convert(source: Path, file: Path) -> None:
    """Write the values of a volume through the store of another name."""
    application = Application.build()
    with (
        application.volumes.open(str(source), STATED) as opened,
        application.volumes.create(str(file), opened.grid, opened.dtype) as sink,
    ):
        for z in range(0, opened.grid.shape[2], 4):
            box = Box.whole(opened.grid.shape).with_range(2, z, min(z + 4, opened.grid.shape[2]))
            sink.write(box, opened.read(box))
        sink.commit()


def read(file: Path, how: str) -> float:
    """Read a volume by ``planes`` or ``boxes``; return the seconds."""
    stated = STATED if file.suffix in (".h5", ".npy") else None
    began = time.perf_counter()
    with Application.build().volumes.open(str(file), stated) as source:
        shape, axis = source.grid.shape, source.slowest_axis
        whole = Box.whole(shape)
        if how == "planes":
            step = source.chunk[axis]
            for start in range(0, shape[axis], step):
                source.read(whole.with_range(axis, start, min(start + step, shape[axis])))
        else:
            for x in range(0, shape[0], EDGE):
                for y in range(0, shape[1], EDGE):
                    start = shape3((x, y, 0))
                    source.read(Box(start, shape3(min(a + EDGE, b) for a, b in zip(start, shape, strict=True))))
    return time.perf_counter() - began


def measured(*words: object) -> tuple[float, float]:
    """Run one measurement in a process of its own; return seconds and the peak of its memory in MB."""
    command = [sys.executable, __file__, "--one", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def one(task: str, file: str, more: str, shape: tuple[int, int, int]) -> float:
    """Do one measurement; ``place`` and ``convert`` only prepare."""
    if task == "place":
        place(Path(file), shape)
    elif task == "convert":
        convert(Path(more), Path(file))
    else:
        return write(Path(file), shape) if task == "write" else read(Path(file), task)
    return 0.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="1024,1024,256")
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = shape3(given.shape.split(","))
    if given.one:
        seconds = one(*given.one, shape)
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    known = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if name in flags]
    print(f"{os.cpu_count()} processors with {', '.join(known)}; {given.shape} voxels of uint16; labels of uint8\n")
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    with TemporaryDirectory() as folder:
        size = ["--shape", given.shape]
        base = Path(folder) / "plain.npy"
        measured("place", base, "-", *size)
        for name, ending in WRITTEN.items():
            rows[name] = {"write labels": measured("write", Path(folder) / f"labels{ending}", "-", *size)}
            if ending != ".seg.nrrd":
                file = Path(folder) / f"values{ending}"
                measured("convert", file, base, *size)
                rows[name] |= {how: measured(how, file, "-", *size) for how in ("planes", "boxes")}
        for name, file_name in OTHERS.items():
            file = Path(folder) / file_name
            if file != base:
                measured("place", file, "-", *size)
            rows[name] = {how: measured(how, file, "-", *size) for how in ("planes", "boxes")}
    print("| format | read by planes | read by boxes | write labels |\n|---|---|---|---|")
    first = rows["NIfTI"]
    for name, row in rows.items():
        cells = [cell(row.get(what), first[what]) for what in ("planes", "boxes", "write labels")]
        print(f"| {name} | {' | '.join(cells)} |")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def cell(found: tuple[float, float] | None, beside: tuple[float, float]) -> str:
    """Return seconds, their ratio to NIfTI's, and peak memory."""
    return "" if found is None else f"{found[0]:.1f} s ({found[0] / beside[0]:.1f}), {found[1]:.0f} MB"


if __name__ == "__main__":
    main()

"""Fixtures of all tests."""

from __future__ import annotations

import gc
import logging
import platform
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import voxport.adapters  # noqa: F401 - before any test imports ONNX Runtime, which it silences
from voxport.domain.errors import VoxportError

pytest_plugins = ["voxport.testing.plugin", "tests.skips"]
# before any test module imports a suite
pytest.register_assert_rewrite("voxport.testing")

# What the tests of a folder or a module need, by the longest path that matches.
NEEDS: Mapping[str, Sequence[str]] = {
    "tests/adapters/test_bento_store.py": ("process",),
    "tests/adapters/test_block_schedulers.py": ("process",),
    "tests/adapters/test_bundle_importer.py": ("torch",),
    "tests/adapters/test_dbos_database.py": ("process", "database"),
    "tests/adapters/test_dbos_jobs.py": ("process", "database"),
    "tests/adapters/test_dicom_peers.py": ("process",),
    "tests/adapters/test_dicom_public.py": ("process",),
    "tests/adapters/test_dicom_store.py": ("process",),
    "tests/adapters/test_file_locks.py": ("process",),
    "tests/adapters/test_bioimageio_importer.py": ("process", "torch"),
    "tests/adapters/test_bioimageio_packager.py": ("process",),
    "tests/adapters/test_fsspec_blobs.py": ("process",),
    "tests/adapters/test_foreign_files.py": ("process",),
    "tests/adapters/test_half_weights.py": ("torch",),
    "tests/adapters/test_nnunet_importer.py": ("process", "torch"),
    "tests/adapters/test_onnx_runtime.py": ("process",),
    "tests/adapters/test_openvino_runtime.py": ("process",),
    "tests/adapters/test_scratch_files.py": ("process",),
    "tests/adapters/test_scratch_folders.py": ("process",),
    "tests/adapters/test_torch_exporter.py": ("process", "torch"),
    "tests/adapters/test_torch_integers.py": ("torch",),
    "tests/adapters/test_torch_runtime.py": ("process", "torch"),
    "tests/adapters/test_torch_wrappers.py": ("torch",),
    "tests/application": ("process",),
    "tests/cli": ("process",),
    "tests/cluster": ("process",),
    "tests/client": ("process",),
    "tests/demo": ("process", "browser"),
    "tests/demo/test_languages.py": (),
    "tests/deployment": ("process",),
    "tests/dicom": ("process",),
    "tests/docs": ("process",),
    "tests/domain/geometry/test_framework_resampling.py": ("process", "torch"),
    "tests/domain/labels/test_framework_comparison.py": ("torch",),
    "tests/domain/labels/test_framework_postprocessing.py": ("torch",),
    "tests/examples": ("process",),
    "tests/jobs": ("process", "database"),
    "tests/napari": ("process", "browser"),
    "tests/pages": ("process", "browser"),
    "tests/proxy": ("process",),
    "tests/real_data": ("process", "real_data"),
    "tests/rest": ("process",),
    "tests/rest/test_api_page.py": ("browser",),
    "tests/services/models/test_export.py": ("torch",),
    "tests/services/models/test_verify.py": ("torch",),
    "tests/services/segmentation/test_frameworks.py": ("process", "torch"),
    "tests/services/viewing/test_framework_training.py": ("torch",),
    "tests/test_architecture.py": ("process",),
    "tests/test_checks.py": ("process",),
    "tests/testing/test_segmenters.py": ("process",),
    "tests/up": ("process",),
    "recipes": ("process", "torch"),
}


def pytest_configure() -> None:
    """Set up each process that runs tests, also where the checks run in the background."""
    let_children_handle_signals()
    check_every_error()
    platform.platform()  # for reports; Python starts `uname` for it, once a process


def check_every_error() -> None:
    """Fail wherever any test, in any thread or forked child, makes an error that does not help."""
    make = VoxportError.__init__

    def checked(error: VoxportError, subject: str, *, expected: str, got: str, do: str) -> None:
        make(error, subject, expected=expected, got=got, do=do)
        assert all(text.strip() for text in (subject, expected, error.got, do)), str(error)
        assert expected.casefold() != error.got.casefold(), str(error)

    VoxportError.__init__ = checked  # type: ignore[assignment, method-assign]


def let_children_handle_signals() -> None:
    """Replace ignored signals, which children inherit, by handlers that do nothing, which they do not."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what its folder or module needs; the longest come first, so that no worker ends with them."""
    root = Path(__file__).resolve().parents[1]
    for item in items:
        path = item.path.relative_to(root).as_posix()
        matching = [known for known in NEEDS if path == known or path.startswith(f"{known}/")]
        for need in NEEDS[max(matching, key=len)] if matching else ():
            item.add_marker(need)
    items.sort(key=lambda item: [item.get_closest_marker(need) is None for need in ("real_data", "process")])


def pytest_collection_finish() -> None:
    """Leave what was imported, a million objects, out of the collections of garbage that tests ask for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_process_without_its_marker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a process says so by its marker; ``./check fast`` runs those that do not."""
    if request.node.get_closest_marker("process") is None:

        def refuse(_: object, *arguments: object, **__: object) -> None:
            raise AssertionError(f"{request.node.nodeid} starts {arguments}: name its module in NEEDS")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """What a test sets of voxport's loggers is its own: the next one may read what they log."""
    before = {logger.name: (logger.level, logger.propagate, logger.handlers[:]) for logger in _loggers()}
    yield
    for logger in _loggers():
        level, logger.propagate, logger.handlers[:] = before.get(logger.name, (logging.NOTSET, True, []))
        logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.items()
    return [found for name, found in known if name.startswith("voxport") and isinstance(found, logging.Logger)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes; tests that ask for it are marked ``real_data``."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}")
    return folder

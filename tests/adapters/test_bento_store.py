"""BentoStore keeps the ModelRepository contract in a real BentoML store, and leaves BentoML's users in peace."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.models.bento import BentoStore
from voxport.adapters.models.folder import LayeredModels, ModelDirectory
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.contract.card import read_card
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError, OutputError, UsageError
from voxport.domain.labels.label_map import Label, LabelTable, Output
from voxport.ports.model import Model
from voxport.ports.model_repository import Listing, ModelRepository
from voxport.testing.affine import affine_card
from voxport.testing.models import ModelRepositoryContract, write_bare_affine

from ..cli.conftest import environment
from ..test_architecture import NO_WAY_OUT

# raised while BentoML is imported, by what it imports


class TestBentoStore(ModelRepositoryContract):
    def make_repository(self) -> ModelRepository:
        return BentoStore(OnnxModelFiles(), FileLocks(), self.folder / "bentoml")

    def make_model(self, card: ModelCard, path: Path, seed: int = 0) -> Model:
        write_bare_affine(path, seed)
        return OnnxModelFiles().write(path, card, path)

    def break_one(self) -> str:
        broken = self.folder / "bentoml" / "models" / "nuclei" / "1.0.0"
        broken.mkdir(parents=True)
        (broken / "model.onnx").write_bytes(b"no model")
        return "nuclei:1.0.0"


class TestLayeredModels(TestBentoStore):
    def make_repository(self) -> ModelRepository:
        return LayeredModels(super().make_repository(), ModelDirectory(self.folder / "bundled", OnnxModelFiles()))


class Store:
    """A BentoStore in a folder, and BentoML's own view of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "bentoml" / "models"
        self.repository = BentoStore(OnnxModelFiles(), FileLocks(), folder / "bentoml")

    def model(self, name: str = "vessels", version: str = "1.0.0", seed: int = 0, **card: Any) -> Model:
        path = self.folder / f"upload-{name}-{version}-{seed}.onnx"
        write_bare_affine(path, seed)
        return OnnxModelFiles().write(path, replace(affine_card(1, 2), name=name, version=version, **card), path)

    @property
    def bentoml(self) -> ModuleType:
        """BentoML, with tracking off."""
        os.environ["BENTOML_DO_NOT_TRACK"] = "True"
        import bentoml.models

        return bentoml.models

    @property
    def store(self) -> Any:
        from bentoml._internal.models import ModelStore

        return ModelStore(self.models)

    def get(self, tag: str) -> Any:
        """The model that BentoML's users get."""
        return self.bentoml.get(tag, _model_store=self.store)

    def tags(self) -> list[str]:
        """What BentoML's users see."""
        return [str(model.tag) for model in self.bentoml.list(_model_store=self.store)]

    def put_by_bentoml(self, tag: str, files: Sequence[Path] = (), **description: Any) -> Path:
        """A model that a user of BentoML makes; returns its folder."""
        self.models.mkdir(parents=True, exist_ok=True)
        with self.bentoml.create(tag, **description, _model_store=self.store) as made:
            Path(made.path_of("weights.bin")).write_bytes(b"weights")
            for file in files:
                Path(made.path_of(file.name)).write_bytes(file.read_bytes())
        return self.models.joinpath(*tag.split(":"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_bentoml_finds_the_model_with_everything_that_describes_it(store: Store) -> None:
    stored = store.repository.put(store.model())
    made = store.get("vessels:1.0.0")
    assert store.tags() == ["vessels:1.0.0"]
    assert store.get("vessels:latest").tag == made.tag
    assert made.info.labels == {"made_by": "voxport", "task": "segmentation", "format": "onnx"}
    assert made.info.metadata == {
        "file": "vessels-1.0.0.onnx",
        "reference": "vessels:1.0.0",
        "description": "A weighted sum of the channels.",
        "licence": "Apache-2.0",
        "intended_use": "Tests.",
        "sha256": stored.sha256,
        "weights_sha256": stored.weights_sha256,
        "certified": [],
    }
    assert Path(made.path_of(made.info.metadata["file"])) == stored.path
    assert made.custom_objects["card"] == write_card(stored.card)
    assert read_card(made.custom_objects["card"]) == stored.card
    assert made.custom_objects["class_names"] == ["background", "label 1"]
    assert made.custom_objects["preprocessing"] == write_card(stored.card)["input"]


def test_classes_are_named_in_the_order_of_the_networks_channels(store: Store) -> None:
    labels = LabelTable((Label(5, "capillary"), Label(2, "soma")))
    store.repository.put(store.model(output=Output("sigmoid", labels)))
    assert store.get("vessels:1.0.0").custom_objects["class_names"] == ["capillary", "soma"]


@pytest.mark.parametrize("batch", [None, 1])
def test_the_signature_says_whether_any_batch_goes(store: Store, batch: int | None) -> None:
    model = store.model()
    proto = onnx.load(model.path)
    if batch is not None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        onnx.save(proto, model.path)
    store.repository.put(OnnxModelFiles().read(model.path))
    signature = store.get("vessels:1.0.0").info.signatures["run"]
    assert signature.batchable is (batch is None)
    assert signature.batch_dim == (0, 0)


def test_custom_objects_are_never_unpickled(store: Store) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(store.folder / "sprung"), "w")

    stored = store.repository.put(store.model())
    (stored.path.parent / "custom_objects.pkl").write_bytes(pickle.dumps({"card": Trap()}))
    assert store.repository.list().models == (store.repository.get("vessels"),)
    store.repository.put(store.model(version="2.0.0"))
    store.repository.put(store.model(seed=1))
    (stored.path.parent / "custom_objects.pkl").write_bytes(pickle.dumps({"card": Trap()}))
    store.repository.remove("vessels:1.0.0")
    assert not (store.folder / "sprung").exists()


@pytest.mark.parametrize(
    ("version", "tag"), [("1.2.0", "vessels:1.2.0"), ("1.2.0+abc.1", "vessels:1.2.0_abc.1"), ("2-rc1", "vessels:2-rc1")]
)
def test_a_version_becomes_a_tag_and_stays_what_it_is(store: Store, version: str, tag: str) -> None:
    stored = store.repository.put(store.model(version=version))
    assert store.tags() == [tag]
    assert store.repository.get(f"vessels:{version}") == stored
    store.repository.remove(f"vessels:{version}")
    assert store.tags() == []


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("vessels", "1.0.0-RC1"),
        ("vessels", "1."),
        ("vessels", "1+"),
        ("vessels", "latest"),
        ("v-", "1"),
        ("v" * 64, "1"),
    ],
)
def test_what_bentoml_cannot_call_so_is_a_model_error(store: Store, name: str, version: str) -> None:
    with pytest.raises(ModelError, match="that BentoML takes") as error:
        store.repository.put(store.model(name, version))
    assert error.value.subject == f"{name}:{version}"
    assert not store.models.exists()


def test_bentomls_latest_follows_what_is_put_and_removed(store: Store) -> None:
    for version in ("2.0.0", "1.0.0"):
        store.repository.put(store.model(version=version))
    assert store.get("vessels:latest").tag.version == "1.0.0"
    assert store.repository.get("vessels").card.version == "2.0.0"
    store.repository.remove("vessels:1.0.0")
    assert store.get("vessels:latest").tag.version == "2.0.0"


def test_models_of_bentomls_users_without_onnx_are_left_alone(store: Store) -> None:
    folder = store.put_by_bentoml("classifier:v1")
    store.repository.put(store.model())
    listing = store.repository.list()
    assert [m.card.name for m in listing.models] == ["vessels"]
    assert listing.broken == ()
    assert (folder / "weights.bin").read_bytes() == b"weights"


def test_a_model_of_bentomls_users_with_bare_onnx_has_no_card_and_is_not_broken(store: Store) -> None:
    write_bare_affine(store.folder / "saved_model.onnx")
    store.put_by_bentoml("classifier:v1", [store.folder / "saved_model.onnx"])
    assert store.repository.list() == Listing(())


def test_a_self_describing_file_counts_whatever_its_tag_and_is_replaced_as_the_same(store: Store) -> None:
    store.put_by_bentoml("mine:a1", [store.model().path])
    assert store.repository.get("vessels:1.0.0").path.parent.name == "a1"
    stored = store.repository.put(store.model(seed=1))
    assert store.repository.list().models == (stored,)
    assert store.tags() == ["vessels:1.0.0"]


def test_a_self_describing_file_of_another_name_under_the_same_tag_is_replaced(store: Store) -> None:
    folder = store.put_by_bentoml("vessels:1.0.0", [store.model().path])
    stored = store.repository.put(store.model(seed=1))
    assert store.repository.list().models == (stored,)
    assert [path.name for path in folder.glob("*.onnx")] == ["vessels-1.0.0.onnx"]
    assert store.get("vessels:1.0.0").info.metadata["sha256"] == stored.sha256


@pytest.mark.parametrize("content", ["nothing", "broken", "another card"])
def test_another_model_under_the_same_tag_is_not_overwritten(store: Store, content: str) -> None:
    files = []
    if content == "broken":
        (store.folder / "model.onnx").write_bytes(b"no model")
        files = [store.folder / "model.onnx"]
    elif content == "another card":
        files = [store.model("nuclei").path]
    folder = store.put_by_bentoml("vessels:1.0.0", files)
    before = sorted(folder.iterdir())
    with pytest.raises(ModelError, match=r"bentoml models delete vessels:1\.0\.0"):
        store.repository.put(store.model())
    assert sorted(folder.iterdir()) == before
    assert store.tags() == ["vessels:1.0.0"]


def test_a_model_that_bentoml_cannot_read_hides_no_other_and_can_be_replaced_and_removed(store: Store) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        store.repository.put(store.model(version=version))
    for version in ("1.0.0", "2.0.0"):
        (store.models / "vessels" / version / "model.yaml").write_text("[1", encoding="utf-8")
    assert len(store.repository.list().models) == 3
    store.repository.put(store.model(version="1.0.0"))
    assert store.get("vessels:1.0.0").info.metadata["reference"] == "vessels:1.0.0"
    store.repository.remove("vessels:3.0.0")
    store.repository.remove("vessels:2.0.0")
    assert store.tags() == ["vessels:1.0.0"]


def test_what_cannot_be_written_leaves_the_store_as_it_was(store: Store) -> None:
    stored = store.repository.put(store.model())
    before = {path: path.stat().st_mtime_ns for path in store.models.rglob("*")}
    checkpoint = store.folder / "net.pt"
    checkpoint.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="checkpoint"):
        store.repository.put(replace(stored, path=checkpoint, format="checkpoint"))
    assert {path: path.stat().st_mtime_ns for path in store.models.rglob("*")} == before
    assert list((store.folder / "bentoml" / ".voxport").iterdir()) == [store.folder / "bentoml" / ".voxport" / "lock"]


def test_what_a_killed_process_left_is_swept_away(store: Store) -> None:
    left = store.folder / "bentoml" / ".voxport" / "stage" / "vessels" / "1.0.0"
    left.mkdir(parents=True)
    (left / "vessels-1.0.0.onnx").write_bytes(b"half")
    assert store.repository.list().models == ()
    stored = store.repository.put(store.model())
    assert store.repository.list().models == (stored,)
    assert not left.exists()


def test_a_store_that_cannot_be_written_is_an_output_error(store: Store) -> None:
    (store.folder / "bentoml").write_bytes(b"")
    with pytest.raises(OutputError, match="models"):
        store.repository.put(store.model())


def test_a_full_disk_is_an_output_error_and_nothing_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.repository.put(store.model())

    def full(_: Path, target: Path) -> Path:
        raise OSError(28, f"No space left on device for {target.name}")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="no space left"):
        store.repository.put(store.model(version="2.0.0"))
    monkeypatch.undo()
    assert store.repository.list().models == (first,)
    assert store.tags() == ["vessels:1.0.0"]


def test_a_read_only_store_can_be_read_and_not_written(store: Store) -> None:
    """In a mount of its own, since root may write where permissions forbid it."""
    store.repository.put(store.model())
    home, upload = store.folder / "bentoml", store.model(version="2.0.0").path
    voxport = f"{sys.executable} -m voxport models"
    script = (
        f"mount --bind {home} {home} && mount -o remount,ro,bind {home} && {voxport} list --store bento --json"
        f" && ! {voxport} add {upload} --store bento && ! {voxport} remove vessels:1.0.0 --store bento"
    )
    result = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=store.folder,
        env=environment(store.folder) | {"PATH": os.environ["PATH"], "VOXPORT_BENTOML_HOME": str(home)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "vessels" in result.stdout
    assert len(result.stderr.splitlines()) == 2
    assert result.stderr.count("a place with room that can be written") == 2


def test_concurrent_writers_lose_nothing_and_readers_always_find_a_whole_model(store: Store) -> None:
    """Each writer has a repository of its own, as a process would; all replace 1.0.0, and each adds a version."""
    same = [store.model(seed=seed) for seed in range(4)]
    others = [store.model(version=f"2.{seed}.0", seed=seed) for seed in range(4)]
    store.repository.put(same[0])
    done = threading.Event()
    seen: set[str] = set()

    def write(seed: int) -> None:
        repository = BentoStore(OnnxModelFiles(), FileLocks(), store.folder / "bentoml")
        for _ in range(3):
            repository.put(same[seed])
        repository.put(others[seed])

    def read() -> None:
        repository = BentoStore(OnnxModelFiles(), FileLocks(), store.folder / "bentoml")
        while not done.is_set():
            listing = repository.list()
            assert listing.broken == ()
            seen.add(listing.pick("vessels:1.0.0").weights_sha256)

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(write, seed) for seed in range(4)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert [m.card.version for m in store.repository.list().models] == ["1.0.0", "2.0.0", "2.1.0", "2.2.0", "2.3.0"]
    assert len(store.tags()) == 5
    assert seen <= {model.weights_sha256 for model in same}
    last = store.repository.get("vessels:1.0.0")
    assert store.get("vessels:1.0.0").info.metadata["sha256"] == last.sha256


def test_without_bentoml_the_error_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bentoml.models", None)
    with pytest.raises(UsageError, match=r"pip install 'voxport\[serving\]'"):
        store.repository.list()


def run(code: str, folder: Path, **variables: str) -> int:
    """The exit code of a process that ends with 99 at its first way out, in a folder with an ``upload.onnx``."""
    write_bare_affine(folder / "upload.onnx")
    OnnxModelFiles().write(folder / "upload.onnx", affine_card(1, 2), folder / "upload.onnx")
    kept = {name: value for name, value in environment(folder).items() if not name.startswith("BENTOML_")}
    variables = {"BENTOML_HOME": str(folder / "bentoml"), "TMPDIR": str(folder)} | variables
    command = [sys.executable, "-c", NO_WAY_OUT + code]
    return subprocess.run(command, cwd=folder, env=kept | variables, check=False, timeout=120).returncode


USE = (
    "from voxport.adapters.models.bento import BentoStore\n"
    "from voxport.adapters.models.onnx_files import OnnxModelFiles\n"
    "from pathlib import Path\nfiles = OnnxModelFiles()\n"
    "from voxport.adapters.locks.files import FileLocks\nstore = BentoStore(files, FileLocks())\n"
    "store.put(files.read(Path('upload.onnx')))\nstore.get('affine')\nassert store.list().models\n"
    "store.remove('affine')\n"
)


ASKED = "from bentoml._internal.utils.analytics.usage_stats import do_not_track\nassert not do_not_track()\n"


@pytest.mark.parametrize("before", ["", ASKED])
def test_keeping_a_model_opens_no_connection(tmp_path: Path, before: str) -> None:
    """Even where the program that voxport is part of asked BentoML first, and BentoML remembers that it may track."""
    assert run(before + USE, tmp_path) == 0
    assert (tmp_path / "bentoml" / "models").is_dir()


def test_a_value_that_bentoml_does_not_take_for_a_no_is_mended(tmp_path: Path) -> None:
    assert run(USE, tmp_path, BENTOML_DO_NOT_TRACK="1") == 0


def test_bentomls_tracking_would_be_seen(tmp_path: Path) -> None:
    assert run("import bentoml.models\nwith bentoml.models.create('a:1'):\n    pass", tmp_path) == 99

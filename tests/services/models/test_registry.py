"""Served models: loaded in the background, followed as they come and go, and never served unsound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest
from voxport.adapters.tunings.folder import TuningDirectory
from voxport.domain.errors import BusyError, ModelError, UnknownModelError
from voxport.domain.parity import Agreement
from voxport.domain.tuning import Candidate, Choice, Tuning
from voxport.ports.model import Model, ModelFiles
from voxport.ports.model_repository import BrokenModel, Listing
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.ports.signatures import SigningKey, signature_of
from voxport.services.assurance.signing import Trust, check_signature, sign_model
from voxport.services.models.loading import ModelOpener, Tunings, model_key
from voxport.services.models.registry import ServedModels
from voxport.testing.fakes import FakeRuntime
from voxport.testing.tunings import MACHINE

from tests.services.conftest import brighter_than, make_card


def a_model(name: str = "vessels", version: str = "1.0.0", content: str = "a") -> Model:
    card = replace(make_card(), name=name, version=version)
    return Model(Path(f"{name}.onnx"), card, content * 64, content * 64, card_inside=True)


@dataclass
class Folder:
    """A repository whose content a test changes; it also stands in for the loading of runtimes."""

    models: Sequence[Model] = ()
    broken: Sequence[BrokenModel] = ()
    unloadable: Sequence[str] = ()
    opened: list[str] = field(default_factory=list)
    fails: Exception | None = None

    def list(self) -> Listing:
        if self.fails is not None:
            raise self.fails
        return Listing(tuple(self.models), tuple(self.broken))

    def get(self, reference: str) -> Model:
        for model in reversed(self.models):
            if reference in (model.card.name, model.card.reference):
                return model
        raise ModelError(reference, expected="a model", got="none", do="add it")

    def put(self, model: Model) -> Model:
        raise NotImplementedError

    def remove(self, reference: str) -> None:
        raise NotImplementedError

    def open(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:  # noqa: ARG002 - the port's signature
        self.opened.append(model.sha256[0])
        if model.card.name in self.unloadable:
            raise ModelError(model.card.reference, expected="a graph that loads", got="another", do="export it again")
        if model.card.name == "surprising":
            raise RuntimeError("a secret of the library")
        return FakeRuntime(brighter_than(0.5))


def served(folder: Folder, default: str = "vessels") -> ServedModels:
    files: ModelFiles = None  # type: ignore[assignment]  # every reference here is a name
    return ServedModels(ModelOpener(files, folder, {"onnx": folder.open}, default), folder, default)


def test_nothing_is_ready_before_it_was_loaded() -> None:
    models = served(Folder([a_model()]))
    assert not models.ready
    with pytest.raises(ModelError, match="being looked for"):
        models.take()
    models.refresh()
    assert models.ready
    assert models.take().model.card.reference == "vessels:1.0.0"
    assert models.find().seconds_per_voxel > 0


def test_a_model_scored_a_dummy_input_before_it_is_ready() -> None:
    models = served(Folder([a_model()]))
    models.refresh()
    runtime = models.take().runtime
    assert isinstance(runtime, FakeRuntime)
    assert runtime.calls == [(1, 1, 16, 16, 16)] * 2 + [(1, 1, 8, 8, 8)] * 2


def test_names_mean_the_highest_version_and_the_default_is_the_default() -> None:
    models = served(Folder([a_model("other", content="c"), a_model(), a_model(version="1.10.0", content="b")]))
    models.refresh()
    assert models.find("vessels").reference == "vessels:1.10.0"
    assert models.find("vessels:1.0.0").reference == "vessels:1.0.0"
    assert models.find().reference == "vessels:1.10.0"
    with pytest.raises(UnknownModelError, match=r"other:1\.0\.0, vessels:1\.0\.0"):
        models.find("nothing")


def test_what_is_loaded_stays_loaded_and_what_is_new_or_replaced_is_loaded() -> None:
    folder = Folder([a_model()])
    models = served(folder)
    models.refresh()
    first = models.take().runtime
    folder.models = [a_model(), a_model("other", content="b")]
    models.refresh()
    assert models.take().runtime is first
    assert models.take("other").model.sha256[0] == "b"
    folder.models = [a_model(content="c")]
    models.refresh()
    assert models.take().runtime is not first
    assert folder.opened == ["a", "b", "c"]
    with pytest.raises(UnknownModelError):
        models.find("other")


def test_a_model_that_does_not_load_is_told_of_and_harms_no_other() -> None:
    folder = Folder([a_model(), a_model("torn", content="b"), a_model("surprising", content="c")], unloadable=["torn"])
    models = served(folder)
    models.refresh()
    assert [m.state for m in models.catalogue.models] == ["ready", "broken", "broken"]
    assert not models.ready
    with pytest.raises(ModelError, match="a graph that loads"):
        models.take("torn")
    assert "secret" not in (models.find("surprising").reason or "")
    assert models.take().model.card.name == "vessels"


def test_what_breaks_later_leaves_the_service_ready() -> None:
    folder = Folder([a_model()])
    models = served(folder)
    models.refresh()
    folder.broken = [BrokenModel("torn.onnx", "cut short")]
    models.refresh()
    assert models.ready
    assert models.catalogue.broken == (BrokenModel("torn.onnx", "cut short"),)
    folder.models = []
    models.refresh()
    assert not models.ready


def test_a_folder_that_cannot_be_read_for_once_ends_nothing() -> None:
    folder = Folder([a_model()])
    models = served(folder)
    folder.fails = OSError("the disk is away")
    models.refresh()
    assert "the disk is away" in models.catalogue.broken[0].reason
    folder.fails = None
    models.refresh()
    assert models.ready


def test_a_missing_default_is_told_of() -> None:
    models = served(Folder([a_model()]), default="lost")
    models.refresh()
    assert not models.ready
    with pytest.raises(ModelError, match="lost: expected the default model"):
        models.take()
    assert models.take("vessels").model.card.name == "vessels"


def test_a_model_that_is_being_loaded_asks_for_patience() -> None:
    folder = Folder([a_model()])
    models = served(folder)
    seen: list[BaseException] = []

    def open_slowly(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        with pytest.raises(BusyError, match="still being loaded") as waiting:
            models.take()
        seen.append(waiting.value)
        return Folder.open(folder, model, options)

    folder.open = open_slowly  # type: ignore[method-assign]
    models = served(folder)
    models.refresh()
    assert len(seen) == 1


def test_the_watch_runs_by_itself_and_ends() -> None:
    models = served(Folder([a_model()]))
    models.start()
    while not models.ready:
        pass
    models.close()
    assert models.catalogue.models == ()


def test_models_that_nobody_watches_are_unloaded_too() -> None:
    models = served(Folder([a_model()]))
    models.refresh()
    assert [model.state for model in models.catalogue.models] == ["ready"]
    models.close()
    assert models.catalogue.models == ()


def test_a_tuned_model_is_served_and_warmed_up_as_it_was_tuned(tmp_path: Path) -> None:
    model, store = a_model(), TuningDirectory(tmp_path)
    choice = Choice("onnx", "fp32", 3, (16, 8, 8), 2)
    found = Candidate(choice, 1.0, Agreement(1.0, (1.0,)))
    store.put(Tuning(model_key(model), "vessels:1.0.0", MACHINE, "2026-01-01", "scan", (found,), choice))
    runtime, asked = FakeRuntime(brighter_than(0.5)), []

    def remember(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        assert model.card.name == "vessels"
        asked.append(options)
        return runtime

    folder = Folder([model])
    files: ModelFiles = None  # type: ignore[assignment]  # every reference here is a name
    opener = ModelOpener(files, folder, {"onnx": remember}, "vessels", Tunings(store, MACHINE))
    models = ServedModels(opener, folder, "vessels")
    models.refresh()
    assert models.take().tuned == choice
    assert asked == [RuntimeOptions("fp32", 3)]
    assert set(runtime.calls) == {(1, 1, 16, 16, 16), (2, 1, 16, 8, 8)}


@dataclass
class Signed:
    """Signatures of the files that a test names."""

    files: set[str] = field(default_factory=set)

    def sign(self, file: Path, signature: Path, key: SigningKey) -> None:  # noqa: ARG002 - the port's signature
        assert signature == signature_of(file)
        self.files.add(file.name)

    def check(self, file: Path, signature: Path, trusted: Path) -> None:
        assert (signature, trusted) == (signature_of(file), Path("public.pem"))
        if file.name not in self.files:
            raise ModelError(file.name, expected="a signature", got="none", do="sign it")


def guarded(folder: Folder, signed: Signed, trusted: Path | None = Path("public.pem")) -> ServedModels:
    files: ModelFiles = None  # type: ignore[assignment]  # every reference here is a name
    opener = ModelOpener(files, folder, {"onnx": folder.open}, "vessels")
    return ServedModels(opener, folder, "vessels", trust=Trust(signed, trusted))


@pytest.mark.requirement("R-SIGNED")
def test_an_unsigned_model_is_not_even_loaded_where_signatures_are_asked_for() -> None:
    folder = Folder([a_model(), a_model("other", content="b")])
    models = guarded(folder, Signed({"vessels.onnx"}))
    models.refresh()
    assert models.take().model.card.name == "vessels"
    with pytest.raises(ModelError, match=r"expected a sound model, got other\.onnx: expected a signature, got none"):
        models.take("other")
    assert folder.opened == ["a"]
    assert models.find("other").state == "broken"


def test_a_model_is_served_once_it_is_signed_and_no_longer_when_its_signature_goes() -> None:
    signed = Signed()
    models = guarded(Folder([a_model()]), signed)
    models.refresh()
    assert not models.ready
    sign_model(a_model(), SigningKey(Path("key.pem")), signed)
    models.refresh()
    assert models.ready
    assert models.take().model == a_model()
    signed.files.clear()
    models.refresh()
    assert not models.ready
    with pytest.raises(ModelError, match="expected a signature, got none"):
        models.take()


def test_without_a_key_to_trust_every_model_is_served() -> None:
    models = guarded(Folder([a_model()]), Signed(), trusted=None)
    models.refresh()
    assert models.ready


def test_a_model_whose_card_is_another_file_is_neither_signed_nor_trusted() -> None:
    bare, signed = replace(a_model(), card_inside=False), Signed({"vessels.onnx"})
    for attempt in (
        lambda: sign_model(bare, SigningKey(Path("key.pem")), signed),
        lambda: check_signature(bare, Path("public.pem"), signed),
    ):
        with pytest.raises(ModelError, match="with its card inside"):
            attempt()
    models = guarded(Folder([bare]), signed)
    models.refresh()
    assert models.find().state == "broken"


@pytest.mark.parametrize("trusted", [Path("public.pem"), None])
def test_what_tune_quantised_is_not_served_where_models_must_be_signed(tmp_path: Path, trusted: Path | None) -> None:
    model, store = a_model(), TuningDirectory(tmp_path / "tunings")
    (tmp_path / "quantised.onnx").write_bytes(b"quantised")
    choice = Choice("onnx", "int8", 3, (16, 8, 8), 2)
    found = Candidate(choice, 1.0, Agreement(1.0, (1.0,)))
    tuning = Tuning(
        model_key(model),
        "vessels:1.0.0",
        MACHINE,
        "2026-01-01",
        "scan",
        (found,),
        choice,
        sha256(b"quantised").hexdigest(),
    )
    store.put(tuning, tmp_path / "quantised.onnx")
    opened = []

    def remember(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        opened.append((model.path.name == "vessels.onnx", options.precision))
        return FakeRuntime(brighter_than(0.5))

    folder, files = Folder([model]), None
    opener = ModelOpener(files, folder, {"onnx": remember}, "vessels", Tunings(store, MACHINE))  # type: ignore[arg-type]
    models = ServedModels(opener, folder, "vessels", trust=Trust(Signed({"vessels.onnx"}), trusted))
    models.refresh()
    assert models.ready
    assert opened == [(True, "fp32") if trusted else (False, "int8")]


def test_a_file_without_a_card_is_checked_where_signatures_are_asked_for(tmp_path: Path) -> None:
    signed, bare = tmp_path / "decoder.onnx", tmp_path / "other.onnx"
    trust = Trust(Signed({"decoder.onnx"}), Path("public.pem"))
    trust.check_file(signed)
    with pytest.raises(ModelError, match=r"other\.onnx: expected a signature, got none"):
        trust.check_file(bare)
    Trust(Signed(set()), None).check_file(bare)

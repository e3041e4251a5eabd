"""TensorModelStore over ``bentoml.models``."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import yaml

from ....domain.errors import ModelError, OutputError, UnknownModelError, UsageError
from ....ports.tensor_models import Plain, Serialisable, TensorModel, TensorModelStore
from ...disk import FileMemory, sha256
from .library import is_bare, open_store, untracked_bentoml

_FILE, _BESIDE = "saved_model.onnx", "voxport.json"
_SIGNATURES: Plain = {"run": {"batchable": False}}
_LARGEST = 2 * 10**9  # bytes; a protobuf file cannot be larger


class BentoTensorModels(TensorModelStore):
    """Models in BentoML's store, one BentoML model for each version.

    Labels and metadata are BentoML's. Custom objects and signatures are in a JSON file beside the network, because
    BentoML pickles the former and has no ``max_batch_size``. Pickled objects of other programs are never read.

    Args:
        home: BentoML's home folder; None for BentoML's default (BENTOML_HOME).
    """

    def __init__(self, home: Path | None = None) -> None:
        self._home = home
        self._hashes = FileMemory[str | None]()
        self._infos = FileMemory[dict[str, Any]]()  # each look-up reads all of them

    def save_model(
        self,
        name: str,
        model: str | Path | Serialisable,
        signatures: Plain | None = None,
        labels: Mapping[str, str] | None = None,
        custom_objects: Plain | None = None,
        metadata: Plain | None = None,
    ) -> TensorModel:
        content = _checked_network(model)
        beside = {"signatures": dict(signatures or _SIGNATURES), "custom_objects": dict(custom_objects or {})}
        text, details = _json_of(beside, "custom_objects"), json.loads(_json_of(dict(metadata or {}), "metadata"))
        from bentoml.exceptions import BentoMLException

        try:
            with untracked_bentoml().models.create(
                name,
                labels=dict(labels or {}),
                metadata=details,
                signatures={method: _of_bentoml(how) for method, how in beside["signatures"].items()},
                _model_store=self._store,
            ) as entry:
                Path(entry.path_of(_FILE)).write_bytes(content)
                Path(entry.path_of(_BESIDE)).write_text(text, encoding="utf-8")
            tag = str(entry.tag)
        except (BentoMLException, ValueError, TypeError, AttributeError) as error:
            got = " ".join(str(error).split())[:200]
            raise UsageError(
                name[:80] or "model name", expected="a model that BentoML keeps", got=got, do="correct it"
            ) from None
        except OSError as error:
            raise OutputError.cannot_write(str(self._folder), error) from None
        return self.get(tag)

    def get(self, tag: str) -> TensorModel:
        name, _, version = tag.partition(":")
        named = self._found(name) if name in self._names() else ()
        found = [model for model in named if version in ("", "latest", model.version)]
        if not found:
            known = ", ".join(m.tag for m in self.list()) or "none"
            do = "list the models of the store bento"
            raise UnknownModelError(
                tag[:80] or "model name", expected=f"one of the models {known}", got="another name", do=do
            )
        return found[-1]

    def list(self) -> tuple[TensorModel, ...]:
        return tuple(model for name in self._names() for model in self._found(name))

    def _names(self) -> builtins.list[str]:
        return sorted(path.name for path in self._folder.glob("*"))

    def _found(self, name: str) -> builtins.list[TensorModel]:
        """Return the versions of a name, the newest last."""
        entries = sorted((self._folder / name).glob("*/model.yaml"), key=lambda path: path.stat().st_mtime_ns)
        return [model for path in entries if (model := self._read(path.parent)) is not None]

    def _read(self, entry: Path) -> TensorModel | None:
        """Return the model of an entry; None unless its only ONNX file is a network without a card."""
        networks = list(entry.glob("*.onnx"))
        if len(networks) != 1:
            return None
        network, description = networks[0], entry / "model.yaml"
        try:
            digest = self._hashes.recall(network, [network], lambda: sha256(network) if is_bare(network) else None)
            if digest is None:
                return None
            info = self._infos.recall(
                description, [description], lambda: yaml.safe_load(description.read_text(encoding="utf-8"))
            )
            beside = json.loads((entry / _BESIDE).read_text(encoding="utf-8")) if (entry / _BESIDE).is_file() else {}
            return TensorModel(
                entry.parent.name,
                entry.name,
                network,
                digest,
                beside.get("signatures") or info.get("signatures") or _SIGNATURES,
                info.get("labels") or {},
                info.get("metadata") or {},
                beside.get("custom_objects") or {},
            )
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            return None  # removed in the meantime, or not written by BentoML

    @property
    def _store(self) -> Any:
        return open_store(self._home)

    @property
    def _folder(self) -> Path:
        return Path(self._store._path)


def _checked_network(model: str | Path | Serialisable) -> bytes:
    """Return the bytes of an ONNX file that holds all its weights. Raises ModelError."""
    subject = str(model) if isinstance(model, str | Path) else "model"
    try:
        content = Path(model).read_bytes() if isinstance(model, str | Path) else model.SerializeToString()
    except OSError as error:
        got = (error.strerror or "an error").lower()
        raise ModelError(subject, expected="a model file", got=got, do="check the path") from None
    try:
        proto = onnx.load_model_from_string(content)
        external = any(onnx.external_data_helper.uses_external_data(tensor) for tensor in proto.graph.initializer)
    except Exception:  # noqa: BLE001 - protobuf has many errors for what it cannot parse
        proto, external = onnx.ModelProto(), False
    if not proto.graph.node or len(content) > _LARGEST:
        raise ModelError(subject, expected="an ONNX model", got="another or a damaged file", do="get the file again")
    if external:
        do = "save it again with onnx.save(model, path, save_as_external_data=False)"
        raise ModelError(subject, expected="one file with its weights inside", got="weights in other files", do=do)
    return content


def _json_of(data: Plain, what: str) -> str:
    try:
        return json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        do = "use numbers, texts, lists and mappings"
        raise UsageError(what, expected="data that JSON can hold", got=str(error)[:120], do=do) from None


def _of_bentoml(signature: Any) -> dict[str, Any]:
    """Return the keys of a signature that BentoML knows."""
    return {name: signature[name] for name in ("batchable", "batch_dim") if name in signature}

"""Model files: ONNX with the model card in ``metadata_props`` or beside it, and checkpoints with a card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import yaml
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from ....contract.card import read_card
from ....domain.cards.model_card import ModelCard
from ....domain.cards.writing import write_card
from ....domain.errors import ModelError
from ....ports.model import Model, ModelFiles
from ...disk import FileMemory, output_errors, write_whole

CARD_KEY = "voxport.card"
# What torch.save and TorchScript write, and what it wrote before 2020.
_CHECKPOINT_MAGIC = (b"PK\x03\x04", b"\x80\x02")


class OnnxModelFiles(ModelFiles):
    """ONNX files; checkpoints with a card are read only. Files are read and hashed again only after a change."""

    def __init__(self, memory: FileMemory[Model | ModelError] | None = None) -> None:
        self._memory = memory or FileMemory()

    def read(self, path: Path, card: Path | None = None) -> Model:
        beside = path.with_name(f"{path.stem}.card.yaml")
        outside = card if card is not None else beside if beside.is_file() else None

        def read() -> Model | ModelError:
            try:
                return self._read(path, card, outside)
            except ModelError as error:
                # errors of content are cached; errors of opening may pass
                if isinstance(error.__cause__, OSError):
                    raise
                return error

        files = (path,) if outside is None else (path, outside)
        found = self._memory.recall((path, card), files, read)
        if isinstance(found, ModelError):
            raise ModelError(found.subject, expected=found.expected, got=found.got, do=found.do)
        return found

    def _read(self, path: Path, card: Path | None, outside: Path | None) -> Model:
        content = _bytes_of(path)
        sha256 = hashlib.sha256(content).hexdigest()
        if content.startswith(_CHECKPOINT_MAGIC):
            if outside is None:
                raise _no_card(path)
            return Model(path, self.read_card(outside), sha256, sha256, "checkpoint")
        proto = _parse(content, path)
        weights_sha256 = _weights_sha256(proto)
        embedded = next((p.value for p in proto.metadata_props if p.key == CARD_KEY), None)
        if card is None and embedded is not None:
            found = _card_of(embedded, path)
        elif outside is not None:
            found = self.read_card(outside)
        else:
            raise _no_card(path)
        found.check_weights(weights_sha256, path.name)
        return Model(path, found, sha256, weights_sha256, card_inside=card is None and embedded is not None)

    def read_card(self, path: Path) -> ModelCard:
        try:
            data = yaml.safe_load(_bytes_of(path, what="a model card in YAML or JSON"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            at = getattr(error, "problem_mark", None)
            where = f"a syntax error in line {at.line + 1}" if at is not None else "something else"
            raise ModelError(
                path.name, expected="a model card in YAML or JSON", got=where, do="correct the file"
            ) from None
        return read_card(data, path.name)

    def write(self, weights: Path, card: ModelCard, destination: Path) -> Model:
        content = _bytes_of(weights)
        if content.startswith(_CHECKPOINT_MAGIC):
            raise ModelError(
                weights.name,
                expected="an ONNX file, which can carry its card",
                got="a checkpoint",
                do="export it with voxport export",
            )
        proto = _parse(content, weights)
        others = [(p.key, p.value) for p in proto.metadata_props if p.key != CARD_KEY]
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, dict(others) | {CARD_KEY: json.dumps(write_card(card))})
        with output_errors(destination):
            write_whole(destination, proto.SerializeToString(deterministic=True))
        return self.read(destination)


def _no_card(path: Path) -> ModelError:
    return ModelError(
        path.name,
        expected=f"a model card inside the file, as {path.stem}.card.yaml beside it, or given as `card`",
        got="none",
        do="write one that says what the network expects and emits",
    )


def _bytes_of(path: Path, what: str = "a model file") -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or "an error"
        raise ModelError(str(path), expected=what, got=reason.lower(), do="check the path") from error
    if not content:
        raise ModelError(path.name, expected=what, got="an empty file", do="get the file again")
    return content


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    proto: onnx.ModelProto | None
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError:
        proto = None
    if proto is None or not proto.graph.node or not proto.opset_import:
        raise ModelError(
            path.name, expected="an ONNX model", got="a file that is none, or a damaged one", do="get the file again"
        )
    if any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise ModelError(
            path.name,
            expected="one file with its weights inside",
            got="weights in other files",
            do="save it again with onnx.save(model, path, save_as_external_data=False)",
        )
    return proto


def _weights_sha256(proto: onnx.ModelProto) -> str:
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _card_of(text: str, path: Path) -> ModelCard:
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError:
        data = None
    return read_card(data, path.name)

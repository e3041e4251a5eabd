"""Models of any kind: saved, found, loaded, and kept loaded for callers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...ports.tensor_models import TensorModel, TensorModelStore
from ...ports.tensors import TensorSession, joins_along
from ..assurance.signing import Trust
from .batching import Batcher, Batching

Provider = str | tuple[str, Mapping[str, object]]


class OpenSession(Protocol):
    """Opens a file in the runtime of the settings; ``providers`` are ONNX Runtime's, in order."""

    def __call__(self, path: Path, providers: Sequence[Provider] | None = None) -> TensorSession:
        """The network, loaded."""


class TensorModels:
    """ONNX models of any kind in a store. Safe for several threads.

    ``save_model``, ``get`` and ``list`` are those of ``TensorModelStore``. A model that is kept loaded must be signed
    where ``trust`` asks for it.
    """

    def __init__(self, store: TensorModelStore, open_session: OpenSession, trust: Trust | None = None) -> None:
        self.save_model, self.get, self.list = store.save_model, store.get, store.list
        self._open_session, self._trust = open_session, trust
        self._loading = threading.Lock()
        self._loaded: dict[tuple[str, str], tuple[TensorSession, Batcher | None]] = {}

    def load_model(self, tag: str, providers: Sequence[Provider] | None = None) -> TensorSession:
        """Load the model ``tag`` in a session of its own, which the caller closes.

        ``providers`` are ONNX Runtime's execution providers in order, each a name or a pair of name and options; None
        takes those of the settings.

        Raises:
            UnknownModelError: there is no such model.
            ModelError: it cannot be loaded.
            UsageError: a provider is not installed.
        """
        return self._open_session(self.get(tag).path, providers)

    def session(self, model: TensorModel) -> TensorSession:
        """The model's session, loaded at the first call and kept. Raises ModelError."""
        return self._kept(model)[0]

    def run(
        self, model: TensorModel, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> Mapping[str, Any]:
        """Run a model that is kept loaded; concurrent calls share a batch where its signature says ``batchable``.

        Raises:
            InputError, ModelError, LimitError: as ``TensorSession.run``.
        """
        session, batcher = self._kept(model)
        return session.run(inputs, outputs) if batcher is None else batcher(inputs, outputs)

    def close(self) -> None:
        """Forget all sessions."""
        with self._loading:
            for session, _ in self._loaded.values():
                session.close()
            self._loaded.clear()

    def _kept(self, model: TensorModel) -> tuple[TensorSession, Batcher | None]:
        with self._loading:
            key = model.tag, model.sha256  # models of one file may have several signatures
            if key not in self._loaded:
                if self._trust is not None:
                    self._trust.check_file(model.path)
                session = self._open_session(model.path)
                batching = batching_of(model, session)
                self._loaded[key] = session, None if batching is None else Batcher(session.run, batching)
            return self._loaded[key]


def batching_of(model: TensorModel, session: TensorSession) -> Batching | None:
    """How calls to ``run`` may share a batch, where the signature says so and the network can.

    ``batch_dim`` is one axis, or one of the inputs and one of the outputs. Calls do not share a batch where another
    program has stored anything else.
    """
    how = model.signatures.get("run")
    if not isinstance(how, Mapping) or not how.get("batchable"):
        return None
    axes, size = how.get("batch_dim", 0), how.get("max_batch_size") or Batching.max_size
    axes = axes if isinstance(axes, list | tuple) else (axes, axes)
    if len(axes) != 2 or not all(type(number) is int and number >= 0 for number in (*axes, size)):
        return None
    return Batching(size, input_axis=axes[0], output_axis=axes[1]) if joins_along(session, *axes) else None

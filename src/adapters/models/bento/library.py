"""BentoML, imported on first use, without usage tracking."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ....domain.errors import UsageError
from ...disk import output_errors

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore


def untracked_bentoml() -> ModuleType:
    """Import BentoML without usage tracking. Raises UsageError if it is not installed."""
    # BentoML accepts only "true", and would send the size of every stored model
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    try:
        import bentoml
        import bentoml.models
        from bentoml._internal.utils.analytics.usage_stats import do_not_track
    except ImportError:
        raise UsageError(
            "the bento store", expected="BentoML", got="none installed", do="pip install 'voxport[serving]'"
        ) from None
    # the answer may be cached from before the variable was set
    do_not_track.cache_clear()
    return bentoml


def open_store(home: Path | None) -> ModelStore:
    """Open BentoML's model store below a home folder; None is BentoML's default.

    Raises:
        UsageError: BentoML is not installed.
        OutputError: the home folder cannot be created.
    """
    untracked_bentoml()
    # bentoml.models takes a store, but has no public name for its type, nor for the default
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    if home is not None:
        return ModelStore(home / "models")
    with output_errors("BENTOML_HOME"):
        return BentoMLContainer.model_store.get()

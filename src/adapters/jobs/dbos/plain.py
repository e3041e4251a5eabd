"""What DBOS keeps in the database, as JSON: by itself it pickles, and who writes there could run code in workers."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from dbos import Serializer
from dbos._serialization import DefaultSerializer


class PlainSerializer(Serializer):
    """Arguments, which are a job's id and a number, and nothing else of interest."""

    def serialize(self, data: Any) -> str:
        """See dbos.Serializer; of an exception its words are kept."""
        return json.dumps(data, default=str)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - the signature is DBOS's
        """See dbos.Serializer."""
        return json.loads(serialized_data)

    def name(self) -> str:
        """See dbos.Serializer."""
        return "voxport_json"


def _refuse(self: DefaultSerializer, serialized_data: str) -> NoReturn:  # noqa: ARG001 - the signature is DBOS's
    raise ValueError("a pickle in the job database: expected JSON, got code; somebody else writes there")


# A row says itself how it is to be read, and may say that it is a pickle.
DefaultSerializer.deserialize = _refuse  # type: ignore[method-assign, assignment]

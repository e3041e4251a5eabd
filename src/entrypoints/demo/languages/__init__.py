"""The page's texts: a JSON file a language, named by its tag, with the keys and placeholders of ``en.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ENGLISH = "en"


@dataclass(frozen=True)
class Texts:
    """The texts of one language, by key."""

    by_key: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with values for its placeholders."""
        return self.by_key[key].format(**values)

    def count(self, key: str, number: int) -> str:
        """Return a text about a number: ``key``, or ``key_one`` for 1."""
        return self(f"{key}_one" if number == 1 else key, count=number)

    def group(self, name: str) -> dict[str, str]:
        """Return the texts whose keys begin with ``name.``."""
        return {key: text for key, text in self.by_key.items() if key.startswith(f"{name}.")}


@dataclass(frozen=True)
class Languages:
    """The texts of each language, by tag."""

    texts: Mapping[str, Texts]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Languages:
        """Read the files of a folder."""
        files = sorted(folder.glob("*.json"))
        return cls({path.stem: Texts(json.loads(path.read_text(encoding="utf-8"))) for path in files})

    def of(self, tag: str) -> Texts:
        """Return the texts of a tag such as ``de-AT``, else of its language, else the English ones."""
        return next(self.texts[name] for name in (tag, tag.partition("-")[0], ENGLISH) if name in self.texts)

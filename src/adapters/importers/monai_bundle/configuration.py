"""The configuration of a bundle: files read as data, references and literal expressions resolved where asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ....domain.errors import ModelError
from ....domain.plain import first_line
from ...archives import file_inside
from .expressions import NotLiteralError, compute

INFERENCE = ("inference.json", "inference.yaml", "inference.yml")
METADATA = ("metadata.json", "metadata.yaml", "metadata.yml")
_MOST_BYTES = 2**24
_MOST_VALUES = 100_000  # a list of references to lists of references grows without bound
_INSTEAD = "write the value in its place"
_BY_HAND = "write a card by hand and give it to `export` with `bundle`"
_ALWAYS = frozenset({"keys", "allow_missing_keys", "lazy", "dtype", "meta_keys", "_desc_", "_disabled_", "_mode_"})


@dataclass(frozen=True)
class Component:
    """A mapping with ``_target_``: its place in the configuration, its class, and its arguments, not yet resolved."""

    where: str
    target: str
    arguments: Mapping[str, Any]
    configuration: Configuration

    @property
    def word(self) -> str:
        """The class without its module."""
        return self.target.rpartition(".")[2]

    @property
    def is_known(self) -> bool:
        """Whether the class may be one of MONAI: it is named without a module, or with one of MONAI's."""
        return "." not in self.target or self.target.startswith("monai.")

    def word_of(self, known: Collection[str]) -> str:
        """Return the one of the known words that the class is, in its form for arrays or dictionaries; else itself.

        Only classes of MONAI are known words.
        """
        if not self.is_known:
            return self.target
        forms = (self.word.removesuffix(ending) for ending in ("", "Dict", "D", "d"))
        return next((form for form in forms if form in known), self.word)

    def only(self, *known: str) -> None:
        """Raise ModelError for an argument other than these and those without an effect."""
        for name in self.arguments:
            if name not in known and name not in _ALWAYS:
                expected = f"of the arguments of {self.word} only {', '.join(known) or 'none'}"
                raise self.refused(expected, name)

    def refused(self, expected: str, got: str, do: str = _BY_HAND) -> ModelError:
        """Build the error for this component."""
        return self.configuration.refused(self.where, expected, got, do)

    def has(self, key: str) -> bool:
        """Return whether an argument is given."""
        return key in self.arguments

    def get(self, key: str, default: Any = None) -> Any:
        """Return an argument, resolved."""
        if key not in self.arguments:
            return default
        return self.configuration.resolved(f"{self.where}::{key}", self.arguments[key])


class Configuration:
    """A bundle's inference configuration."""

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.name = folder.name
        # MONAI itself takes the folder of the configuration for it.
        self._content = {**content, "bundle_root": str(folder)}
        self._values = 0

    @classmethod
    def read(cls, folder: Path) -> Configuration:
        """Read ``configs/inference.json`` or ``.yaml``. Raises ModelError without one, or for an invalid one."""
        content = read_mapping(folder, INFERENCE)
        if content is None:
            expected, do = "configs/inference.json or .yaml", "give the folder that holds configs and models"
            raise ModelError(folder.name, expected=expected, got="neither", do=do)
        return cls(folder, content)

    def __contains__(self, name: str) -> bool:
        return name in self._content

    def value(self, name: str) -> Any:
        """Return a section, resolved. Raises ModelError if it needs code, is absent or refers to itself."""
        return self.resolved(name, self._shallow(name, f"@{name}", ()))

    def component(self, name: str) -> Component | None:
        """Return the component of a section; None without the section."""
        if name not in self._content:
            return None
        return self._component(name, self._shallow(name, f"@{name}", ()))

    def components(self, name: str) -> tuple[Component, ...]:
        """Return the components of a section: those of its ``transforms``, of its list, or itself."""
        found = self._shallow(name, f"@{name}", ()) if name in self._content else []
        if isinstance(found, Mapping) and str(found.get("_target_", "")).rpartition(".")[2] == "Compose":
            name = f"{name}::transforms"
            found = self._shallow(name, found.get("transforms", []), ())
        parts = found if isinstance(found, list) else [found]
        each = (self._component(f"{name}::{i}", self._shallow(f"{name}::{i}", p, ())) for i, p in enumerate(parts))
        return tuple(component for component in each if not self._disabled(component))

    def resolved(self, where: str, value: Any, seen: tuple[str, ...] = ()) -> Any:
        """Return a value with all references and expressions in it resolved."""
        found = self._shallow(where, value, seen)
        seen = (*seen, value) if isinstance(value, str) else seen
        if isinstance(found, Mapping):
            return {str(k): self.resolved(f"{where}::{k}", v, seen) for k, v in found.items()}
        if isinstance(found, list):
            return [self.resolved(f"{where}::{i}", v, seen) for i, v in enumerate(found)]
        return found

    def _component(self, where: str, value: Any) -> Component:
        if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
            raise self.refused(where, "a mapping with _target_", _shown(value), "write it as _target_ and arguments")
        return Component(where, value["_target_"], {k: v for k, v in value.items() if k != "_target_"}, self)

    def _disabled(self, component: Component) -> bool:
        return str(component.get("_disabled_", False)).lower() == "true"

    def _shallow(self, where: str, value: Any, seen: tuple[str, ...]) -> Any:
        """Resolve a value itself, but not the values inside a list or mapping."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise self.refused(where, "a configuration of a model", f"more than {_MOST_VALUES} values")
        while isinstance(value, str) and value[:1] in ("$", "@", "%"):
            if value in seen:
                raise self.refused(where, "plain values", f"{value}, which refers to itself")
            seen = (*seen, value)
            if value[0] == "%":
                raise self.refused(where, "plain values", f"{value!r}, a macro that is not read")
            if value[0] == "@":
                value = self._looked_up(where, value)
                continue
            try:
                return compute(value[1:], partial(self._referred, where, seen))
            except NotLiteralError as error:
                got = f"{value!r}, which is code and is not run ({error})"
                raise self.refused(where, "plain values", got) from None
        return value

    def _referred(self, where: str, seen: tuple[str, ...], reference: str) -> Any:
        return self._shallow(where, reference, seen)

    def _looked_up(self, where: str, reference: str) -> Any:
        found: Any = self._content
        # MONAI writes both section#key (old) and section::key.
        for key in reference[1:].replace("#", "::").split("::"):
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise self.refused(where, "plain values", f"{reference}, which the configuration lacks")
        return found

    def refused(self, where: str, expected: str, got: str, do: str = _INSTEAD) -> ModelError:
        """Build the error for a place of the configuration."""
        return ModelError(self.name, expected=f"{expected} in {where}", got=got, do=do)


def holds_configuration(folder: Path) -> bool:
    """Return whether a folder has an inference configuration. Raises OSError where it cannot be looked at."""
    return any((folder / "configs" / name).is_file() for name in INFERENCE)


def read_mapping(folder: Path, names: tuple[str, ...]) -> Mapping[str, Any] | None:
    """Read the first of these files that ``configs`` holds; None without one.

    Raises:
        ModelError: it is invalid, or lies outside the folder.
    """
    path = next((p for name in names if (p := file_inside(folder, "configs", name)).is_file()), None)
    if path is None:
        return None
    do = "correct the file"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(path.name, expected=f"at most {_MOST_BYTES} bytes", got="more", do=do)
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(path.name, expected="a JSON or YAML file", got=first_line(error), do=do) from None
    if not isinstance(content, Mapping):
        raise ModelError(path.name, expected="a mapping", got=type(content).__name__, do=do)
    return content


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."

"""Parsers for nested plain data (parsed YAML or JSON) that report every problem at once, each by its path.

A parser takes a value and returns what it means, or raises ValueError with what was expected. ``record`` and
``items`` build parsers of mappings and lists from parsers of their parts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")
Parse = Callable[[object], T]


class FieldErrors(ValueError):  # noqa: N818 - it is several
    """Problems with the fields of a mapping: pairs of a path and what is wrong there."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{path} {what}".strip() for path, what in problems))
        self.problems = problems


@dataclass(frozen=True)
class Field:
    """How one field is parsed. Without a default it must be given; null means the default, unless ``nullable``."""

    parse: Parse[Any]
    required: bool = True
    default: Any = None
    nullable: bool = False


def optional(parse: Parse[Any], default: Any = None) -> Field:
    """A field that may be left out or null."""
    return Field(parse, required=False, default=default)


def nullable(parse: Parse[Any], default: Any) -> Field:
    """A field that may be left out, and whose null means null and not the default."""
    return Field(parse, required=False, default=default, nullable=True)


def record(build: Callable[..., T], fields: Mapping[str, Field]) -> Parse[T]:
    """A parser of a mapping: ``build`` gets each field by name; it may raise FieldErrors for fields at odds."""

    def parse(value: object) -> T:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping, got {short(value)}")
        problems: list[tuple[str, str]] = []
        values = {}
        for name, field in fields.items():
            try:
                values[name] = _parse_field(field, name, value)
            except FieldErrors as error:
                problems.extend((_join(name, path), what) for path, what in error.problems)
            except ValueError as error:
                problems.append((name, str(error)))
        problems.extend((str(name), _unknown(str(name), list(fields))) for name in value if name not in fields)
        if problems:
            raise FieldErrors(*problems)
        return build(**values)

    return parse


def items(parse: Parse[T]) -> Parse[tuple[T, ...]]:
    """A parser of a list, each item by ``parse``."""

    def parse_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, got {short(value)}")
        problems: list[tuple[str, str]] = []
        results = []
        for position, item in enumerate(value):
            try:
                results.append(parse(item))
            except FieldErrors as error:
                problems.extend((_join(f"[{position}]", path), what) for path, what in error.problems)
            except ValueError as error:
                problems.append((f"[{position}]", str(error)))
        if problems:
            raise FieldErrors(*problems)
        return tuple(results)

    return parse_all


def _parse_field(field: Field, name: str, mapping: Mapping[Any, Any]) -> Any:
    if name not in mapping:
        if field.required:
            raise ValueError("is missing")
        return field.default
    value = mapping[name]
    if value is None and (field.nullable or not field.required):
        return None if field.nullable else field.default
    return field.parse(value)


def _join(name: str, path: str) -> str:
    return f"{name}{path}" if path.startswith("[") else f"{name}.{path}"


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return "is an unknown key" + (f" (did you mean {close[0]}?)" if close else "")


def short(value: object) -> str:
    """A value as text, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check(accepts: bool, expected: str, value: object) -> None:
    """ValueError that says what was expected and what came, unless ``accepts``."""
    if not accepts:
        raise ValueError(f"expected {expected}, got {short(value)}")


def text(value: object) -> str:
    """Text that is not blank."""
    check(isinstance(value, str) and bool(value.strip()), "text", value)
    return str(value)


def any_text(value: object) -> str:
    """Text that may be empty."""
    check(isinstance(value, str), "text", value)
    return str(value)


def matching(pattern: str, expected: str) -> Parse[str]:
    """Text that matches a regular expression as a whole."""

    def parse(value: object) -> str:
        check(isinstance(value, str) and re.fullmatch(pattern, value) is not None, expected, value)
        return str(value)

    return parse


def one_of(*allowed: str) -> Parse[str]:
    """One of some words."""

    def parse(value: object) -> str:
        check(value in allowed, f"one of {', '.join(allowed)}", value)
        return str(value)

    return parse


def boolean(value: object) -> bool:
    """True or false."""
    check(isinstance(value, bool), "true or false", value)
    return bool(value)


def number(value: object) -> float:
    """A finite number."""
    # compared, because math.isfinite fails on integers beyond float's range
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"expected a finite number, got {short(value)}")
    return float(value)


def whole(least: int) -> Parse[int]:
    """A whole number of at least ``least``."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"expected a whole number of at least {least}, got {short(value)}")
        return value

    return parse


def several(parse: Parse[T], count: int, expected: str) -> Parse[Any]:
    """A tuple of exactly ``count`` items."""

    def parse_all(value: object) -> tuple[T, ...]:
        check(isinstance(value, list | tuple) and len(value) == count, expected, value)
        return items(parse)(value)

    return parse_all


def mapping(value: object) -> dict[str, Any]:
    """A mapping of anything."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, got {short(value)}")
    return dict(value)

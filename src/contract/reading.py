"""Check plain data with pydantic and state every problem, each by its path, in voxport's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, WrapValidator, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_OURS, _RELATION = "voxport", "voxport_relation"
_LONGEST = 60
_NUMBER = ("float_type", "finite_number")
# Words for pydantic's kinds of errors; braces are filled from the constraint.
_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_type": "a time such as 2026-01-31T12:00:00Z",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a finite number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "json_invalid": "JSON",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_type": "text",
    "timezone_aware": "a time with its zone",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "tuple_type": "a list",
}


def _admit_null(schema: dict[str, Any]) -> None:
    """Describe that null stands for the default of an optional field."""
    for name, field in schema["properties"].items():
        field.pop("default", None)
        field.pop("title", None)
        if name not in schema.get("required", ()) and {"type": "null"} not in field.get("anyOf", ()):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


class Strict(BaseModel):
    """A mapping without unknown keys; null means the default, unless the field's type admits None."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_admit_null)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        defaults = {
            name
            for name, field in cls.model_fields.items()
            if not field.is_required() and type(None) not in get_args(field.annotation)
        }
        return {name: inner for name, inner in value.items() if inner is not None or name not in defaults}


def expected(words: str) -> WrapValidator:
    """Replace pydantic's message about a value by ``expected WORDS``."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            number = error.errors()[0]["type"] in _NUMBER
            raise _custom(f"expected {'a finite number' if number else words}") from None

    return WrapValidator(check)


def sized(words: str, count: int | None = None) -> WrapValidator:
    """Admit a list of exactly ``count`` items, or of at least one."""

    def check(value: Any, handler: Any) -> Any:
        if isinstance(value, list | tuple) and (not value if count is None else len(value) != count):
            raise _custom(f"expected {words}")
        if count is not None and not isinstance(value, list | tuple):
            raise _custom(f"expected {words}")
        return handler(value)

    return WrapValidator(check)


def wrong(field: str, words: str) -> ValidationError:
    """Return the error of one field that does not fit the others."""
    return ValidationError.from_exception_data(
        field, [InitErrorDetails(type=_custom(words, _RELATION), loc=(field,), input=None)]
    )


def _custom(words: str, kind: str = _OURS) -> PydanticCustomError:
    return PydanticCustomError(kind, "{words}", {"words": words})


def problems_of(error: ValidationError, model: type[BaseModel] | None = None) -> list[tuple[str, str]]:
    """Return the path and the words of every problem; ``model`` finds the key that an unknown one may stand for."""
    return [(_path(found["loc"]), words_of(found, model)) for found in error.errors(include_url=False)]


def short(value: object) -> str:
    """Return a value as text of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def words_of(found: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Return one problem in voxport's words: expected and got."""
    kind, message = found["type"], found["msg"]
    if kind == "missing":
        return "is missing"
    if kind in ("extra_forbidden", "invalid_key"):
        close = get_close_matches(str(found["loc"][-1]), [] if model is None else _names(model, found["loc"][:-1]), n=1)
        return "is an unknown key" + (f" (did you mean {close[0]}?)" if close else "")
    if kind in (_RELATION, "value_error"):
        return message.removeprefix("Value error, ")
    expected, got = expected_and_got(found)
    return f"expected {expected}, got {got}"


def expected_and_got(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return what one of pydantic's errors expected and got, without pydantic's own words."""
    kind, message, value = found["type"], found["msg"], found.get("input")
    if kind == "missing":
        return "a value", "none"
    if kind in ("extra_forbidden", "invalid_key"):
        return "a field that exists", "another"
    if "UploadFile" in message:
        return "a file, with a name of its own in the form", "text"
    if kind == "literal_error":
        words = found["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"one of {words}", short(value)
    if kind in (_OURS, _RELATION, "value_error"):
        return message.removeprefix("Value error, ").removeprefix("expected "), short(value)
    words = _EXPECTED.get(kind, "another value").format(**found.get("ctx", {}))
    return words, "a file" if hasattr(value, "filename") else short(value)


def _path(steps: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _names(model: type[BaseModel], steps: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model at a path."""
    for step in steps:
        if isinstance(step, str):
            model = next(_models(model.model_fields[step].annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)

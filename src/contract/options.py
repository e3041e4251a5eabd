"""The options of a run as forms and JSON bodies carry them, all derived from the fields of `RunOptions`.

To add an option, add a field to ``domain.run.RunOptions`` with ``metadata=_option(...)`` (and to ``RemoteOptions``
beside it where a server takes it), and use it where it acts, usually in ``services/segmentation/preparation``. The
command line, the forms and the OpenAPI document of the service, the client, stored jobs and the commands in reports
read the field from there. A type that is new here needs a line in `_text_type` and in `encode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import Field

from ..domain.errors import UsageError
from ..domain.reading import Reading, parse_spacing
from ..domain.run import RunOptions, option_text

_LONGEST_TEXT, _LONGEST_NAME = 40, 200
_PATTERNS = {int: "^ *[0-9]+ *, *[0-9]+ *, *[0-9]+ *$", float: "^ *[0-9.eE+-]+ *, *[0-9.eE+-]+ *, *[0-9.eE+-]+ *$"}
# Options that a server takes for stored volumes, and for arrays, which nothing has to be stated of.
REMOTE = tuple(field.name for field in fields(RunOptions) if field.metadata.get("remote"))
ARRAY = tuple(name for name in REMOTE if name not in {stated.name for stated in fields(Reading)})


def option_fields(names: Iterable[str] = REMOTE) -> dict[str, tuple[Any, str]]:
    """Return the type, with its JSON schema, and the description of each option.

    The schema describes what `RunOptions` and the run check themselves, in better words than a schema has.
    """
    hints = get_type_hints(RunOptions)
    return {
        field.name: (_text_type(hints[field.name], field.metadata["schema"]), _description(field.metadata))
        for field in fields(RunOptions)
        if field.name in names
    }


@dataclass(frozen=True)
class StatedOption:
    """An option that states how a volume is stored, as a form asks for it: any text, a choice, or a whole number."""

    description: str
    metavar: str
    choices: tuple[str, ...]
    is_whole: bool


def stated_options() -> dict[str, StatedOption]:
    """Return the options that state how a volume is stored, by name."""
    found = {}
    for field in fields(RunOptions):
        if field.name in Reading.__dataclass_fields__:
            (kind,) = _kinds(get_type_hints(RunOptions)[field.name])
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            metadata = field.metadata
            found[field.name] = StatedOption(metadata["description"], metadata["metavar"] or "", choices, kind is int)
    return found


def options_of(values: Mapping[str, Any], *, memory_bytes: int | None, names: Iterable[str] = REMOTE) -> RunOptions:
    """Return the options with these names in a form or a JSON body. Raises UsageError."""
    given: dict[str, Any] = {name: values.get(name) for name in names}
    for name, parse in (("patch", edges), ("spacing", parse_spacing)):
        if given.get(name) is not None:
            given[name] = parse(given[name])
    return RunOptions(**given, memory_bytes=memory_bytes)


def edges(text: str) -> tuple[int, int, int]:
    """Return the three edges of ``X,Y,Z``. Raises UsageError."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise UsageError("patch", expected="X,Y,Z in voxels", got=text, do="give three whole numbers")
    x, y, z = (int(part) for part in parts)
    return x, y, z


def encode(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return form fields of the options that are given. Raises TypeError for an option that servers do not take."""
    if unknown := set(options).difference(REMOTE):
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}; expected some of {', '.join(REMOTE)}")
    hints = get_type_hints(RunOptions)
    return {name: [_encoded(hints[name], options[name])] for name in REMOTE if options.get(name) is not None}


def _encoded(hint: Any, value: Any) -> str:
    (kind,) = _kinds(hint)
    if get_origin(kind) is tuple:
        return option_text(tuple(map(get_args(kind)[0], value)))
    return option_text(kind(value) if kind in (int, float) else str(value))


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the types of an option besides None."""
    return tuple(kind for kind in get_args(hint) if kind is not type(None))


def _text_type(hint: Any, schema: Mapping[str, Any]) -> Any:
    """Return the type of an option's text in a form; None is left out."""
    (kind,) = _kinds(hint)
    if get_origin(kind) is tuple:
        pattern = _PATTERNS[get_args(kind)[0]]
        return Annotated[str, Field(max_length=_LONGEST_TEXT, json_schema_extra={"pattern": pattern})]
    if get_origin(kind) is Literal:
        return Annotated[str, Field(max_length=_LONGEST_TEXT, json_schema_extra={"enum": list(get_args(kind))})]
    longest = _LONGEST_NAME if kind is str else None
    return Annotated[kind, Field(max_length=longest, json_schema_extra=dict(schema))]


def _description(metadata: Mapping[str, Any]) -> str:
    text, shown = metadata["description"], metadata["shown"]
    return f"{text[:-1]}; {shown} where absent." if shown else str(text)

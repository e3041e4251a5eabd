"""The literal ``$`` expressions of bundles, computed from their syntax tree. No Python code is evaluated.

Known are numbers, text, lists and mappings, references such as ``@labels``, arithmetic, ``a if b else c``,
comparisons, indexing, ``len``, ``list``, ``tuple``, ``range``, ``int``, ``float``, ``str``, ``min``, ``max``, ``sum``,
and a few names of MONAI and torch.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_REFERENCE = re.compile(r"@\w+(?:(?:::|#)\w+)*")
_MOST_CHARACTERS = 10_000
_MOST_VALUES = 10_000
_NAMES: Mapping[str, Any] = {
    "monai.utils.CommonKeys.IMAGE": "image",
    "monai.utils.CommonKeys.LABEL": "label",
    "monai.utils.CommonKeys.PRED": "pred",
    **{f"{module}.{kind}": kind for module in ("torch", "numpy", "np") for kind in ("float32", "float64", "uint8")},
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "len": len,
    "list": list,
    "tuple": list,
    "int": int,
    "float": float,
    "str": str,
    "min": min,
    "max": max,
    "sum": sum,
}


class NotLiteralError(Exception):
    """An expression with something that is not computed; its text names that."""


def compute(expression: str, looked_up: Callable[[str], Any]) -> Any:
    """Return the value of an expression without its ``$``; ``looked_up`` gives the value of a reference.

    Raises:
        NotLiteralError: the expression needs code, or its value is large.
    """
    references: list[str] = []

    def named(found: re.Match[str]) -> str:
        references.append(found.group())
        return f"_{len(references) - 1}_"

    if len(expression) > _MOST_CHARACTERS:
        raise NotLiteralError(f"{len(expression)} characters")
    try:
        tree = ast.parse(_REFERENCE.sub(named, expression).strip(), mode="eval").body
        return _Literal({f"_{i}_": name for i, name in enumerate(references)}, looked_up).value(tree)
    except (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NotLiteralError(next(iter(str(error).splitlines()), type(error).__name__)) from None


class _Literal:
    def __init__(self, references: Mapping[str, str], looked_up: Callable[[str], Any]) -> None:
        self._references, self._looked_up = references, looked_up

    def value(self, node: ast.expr) -> Any:
        """Return the value of a part of the expression."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value
            case ast.Name(id=name) if name in self._references:
                return self._looked_up(self._references[name])
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self.value(part) for part in parts]
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.value(k): self.value(v) for k, v in zip(keys, values, strict=True) if k is not None}
            case ast.IfExp(test=test, body=body, orelse=other):
                return self.value(body if self.value(test) else other)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _UNARY[type(op)](self.value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _small(_binary(type(op), self.value(left), self.value(right)))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                return _COMPARISONS[type(op)](self.value(left), self.value(right))
            case ast.Subscript(value=whole, slice=key) if not isinstance(key, ast.Slice):
                return self.value(whole)[self.value(key)]
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name, [self.value(argument) for argument in arguments])
            case ast.Attribute() if ast.unparse(node) in _NAMES:
                return _NAMES[ast.unparse(node)]
        raise NotLiteralError(_REFERENCE_NAMES.sub(lambda m: self._references.get(m.group(), ""), ast.unparse(node)))

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name == "range":
            found = range(*arguments)
            if len(found) > _MOST_VALUES:
                raise NotLiteralError(f"a range of {len(found)} numbers")
            return list(found)
        if name not in _FUNCTIONS:
            raise NotLiteralError(f"{name}(...)")
        return _small(_FUNCTIONS[name](*arguments))


_REFERENCE_NAMES = re.compile(r"_\d+_")


def _binary(kind: type[ast.operator], left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if (
        not numbers
        and kind is ast.Mult
        and len(left if isinstance(right, int) else right) * max(right if isinstance(right, int) else left, 0)
        > _MOST_VALUES
    ):
        raise NotLiteralError("a long repetition")
    if not numbers and kind is ast.Mod:
        raise NotLiteralError("text formatted with %")
    return _BINARY[kind](left, right)


def _small(value: Any) -> Any:
    if isinstance(value, str | list) and len(value) > _MOST_VALUES:
        raise NotLiteralError(f"{len(value)} values")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise NotLiteralError("a number beyond 64 bits")
    return value

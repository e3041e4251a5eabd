"""Pages from templates of Jinja, each one file: style, script and pictures are inside."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....domain.viewing.pages import CasePage, CohortPage, ComparisonPage, Histogram
from ....ports.pages import PageWriter

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_HISTOGRAM_HEIGHT = 100


class JinjaPages(PageWriter):
    """`PageWriter` with templates that escape all text.

    The policy in a page's head admits its own style and script by their hashes, and pictures inside it: nothing else
    is loaded or run, whatever a name contains.
    """

    def case(self, page: CasePage) -> bytes:
        return self._render("case.html", page=page)

    def cohort(self, page: CohortPage) -> bytes:
        return self._render("cohort.html", page=page)

    def comparison(self, page: ComparisonPage) -> bytes:
        return self._render("comparison.html", page=page)

    def _render(self, template: str, **values: Any) -> bytes:
        text = self._environment.get_template(template).render(**values)
        return text.encode("utf-8", "replace")  # a file's name may hold bytes that are no text

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # most runs make no page
        from markupsafe import Markup

        made = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters |= {"picture": _picture, "number": _number, "bars": _bars}
        style, script = ((_TEMPLATES / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
        allowed = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
        made.globals |= {
            "style": Markup(style),
            "script": Markup(script),
            "policy": f"{allowed}; base-uri 'none'; form-action 'none'",
        }
        return made


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _picture(png: bytes) -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _number(value: object) -> str:
    """Return a number in at most six digits, other values as text, and a dash for what is undefined."""
    if value is None:
        return "\u2013"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bars(histogram: Histogram) -> str:
    """Return the path of a histogram's bars, one unit wide and at most 100 high; heights are of square roots."""
    highest = max(max(histogram.counts), 1)
    heights = (_HISTOGRAM_HEIGHT * (count / highest) ** 0.5 for count in histogram.counts)
    return "".join(f"M{i} {_HISTOGRAM_HEIGHT}v{-height:.1f}h1V{_HISTOGRAM_HEIGHT}" for i, height in enumerate(heights))

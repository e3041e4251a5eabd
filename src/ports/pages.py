"""Port for pages: files for a browser that need nothing beside them."""

from __future__ import annotations

from typing import Protocol

from ..domain.viewing.pages import CasePage, CohortPage, ComparisonPage


class PageWriter(Protocol):
    """Writes pages as HTML. All text is shown as text; a page loads nothing and runs no script but its own."""

    def case(self, page: CasePage) -> bytes:
        """Return a page on a case."""

    def cohort(self, page: CohortPage) -> bytes:
        """Return a page on all cases of a folder, in which they are sorted and rated."""

    def comparison(self, page: ComparisonPage) -> bytes:
        """Return a page on masks beside their truth."""

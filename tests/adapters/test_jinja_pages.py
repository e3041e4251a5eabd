"""JinjaPages keeps the PageWriter contract."""

from __future__ import annotations

from voxport.adapters.pages.jinja import JinjaPages
from voxport.ports.pages import PageWriter
from voxport.testing.pages import PageWriterContract


class TestJinjaPages(PageWriterContract):
    def make_writer(self) -> PageWriter:
        return JinjaPages()

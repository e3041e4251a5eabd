"""A queue of jobs on DBOS: an SQLite file on one machine, a Postgres database for many."""

from __future__ import annotations

from . import library  # noqa: F401 - before the others import dbos
from .queue import DbosJobQueue

__all__ = ["DbosJobQueue"]

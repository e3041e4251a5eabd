"""A pickle that somebody writes into a Postgres database of jobs is never unpickled."""

from __future__ import annotations

import base64
import os
import pickle
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.testing.job_queue import example_case, run_to_the_end, wait_until, working

from .processes import Postgres


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.requirement("R-NOCODE")
def test_a_pickle_in_postgres_is_never_unpickled(postgres: Postgres, tmp_path: Path) -> None:
    code = base64.b64encode(pickle.dumps({"args": (Code(tmp_path / "ran"),), "kwargs": {}})).decode()
    url = postgres.new_database("pickles")
    with closing(DbosJobQueue(url)) as queue:
        job, good = (queue.submit(example_case(number), "ada") for number in range(2))
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            for change in ("workflow_status SET serialization = 'py_pickle'", "workflow_input SET inputs = :code"):
                statement = sa.text(f"UPDATE dbos.{change} WHERE workflow_uuid LIKE :id")
                changed = connection.execute(statement, {"code": code, "id": f"{job.id}.%"})
                assert changed.rowcount == 1
        engine.dispose()
        with working(queue, run_to_the_end):
            wait_until(lambda: queue.get(good.id).state == "done")
    assert not (tmp_path / "ran").exists()

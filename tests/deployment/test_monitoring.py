"""What Grafana shows is what the service measures."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from .composed import DEPLOYMENT, ROOT, services

GRAFANA = DEPLOYMENT / "grafana"
# as `GET /metrics` names what it tells of the job queue
OF_JOBS = {
    "voxport_jobs",
    "voxport_jobs_oldest_queued_seconds",
    "voxport_job_workers",
    "voxport_job_slots",
    "voxport_jobs_ended_total",
    "voxport_job_queue_up",
}


def dashboard() -> dict[str, Any]:
    (file,) = (GRAFANA / "dashboards").glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def measured() -> set[str]:
    """All names under which the service shows something."""
    source = (ROOT / "src" / "entrypoints" / "rest" / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"(voxport_[a-z_]+)"', source)) | OF_JOBS
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    return {f"{name}{suffix}" for name in names for suffix in suffixes}


def test_every_metric_of_the_dashboard_is_measured() -> None:
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"voxport_[a-z_]+", " ".join(expressions)))
    assert shown <= measured()
    assert shown >= OF_JOBS
    assert {
        "voxport_in_flight",
        "voxport_tiles_total",
        "voxport_refused_total",
        "voxport_stage_seconds_bucket",
    } <= shown


def test_panels_have_a_place_of_their_own() -> None:
    places = set[tuple[int, int]]()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_the_data_source_is_prometheus_as_it_is_composed() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {source["uid"]}


def test_dashboards_are_looked_for_where_they_are_mounted() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/voxport.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    mounts = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"

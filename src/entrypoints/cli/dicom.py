"""``voxport dicom``: the process that receives DICOM series, and sends their segmentations back."""

from __future__ import annotations

import threading
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.errors import UsageError
from . import options as opt
from .console import build_application, on_stop
from .serving import check_free, ip_of, needs_package

if TYPE_CHECKING:
    from ...application import Application
    from ...settings import DicomSettings, JobsSettings
    from ..dicom.listener import Network


def dicom_command(
    host: opt.Host = "127.0.0.1",
    port: opt.Port = 11112,
    aet: Annotated[
        str | None, typer.Option("--aet", help="Its application entity title.", show_default="VOXPORT")
    ] = None,
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    store: opt.StoreName = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Run the jobs here too.")] = True,
    threads: opt.Threads = None,
    scratch: opt.Scratch = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let every machine send that can reach it.")] = False,
) -> None:
    """Receive DICOM series, segment them by the rules of the settings, and send DICOM SEG back, until stopped.

    The settings file has the rules under dicom: see docs/dicom.md.
    """
    for package in ("pynetdicom", "highdicom"):
        needs_package("voxport dicom", package, "medical")
    needs_package("voxport dicom", "dbos")
    application = build_application(
        models_dir=models,
        model=model,
        store=store,
        threads=threads,
        scratch_dir=scratch,
        dicom={"aet": aet} if aet else None,
    )
    settings = application.settings.dicom
    if not settings.rules:
        do = "write dicom: {peers: {pacs: {aet: ORTHANC, host: 127.0.0.1, port: 4242}}, rules: [{send_to: pacs}]}"
        do += " into the settings file"
        raise UsageError("dicom.rules", expected="a rule that says which series are segmented", got="none", do=do)
    address = ip_of(host)
    senders = _senders(settings, address, insecure=insecure)
    check_free(address, port)
    with application.locks.hold(_lock_file(application.settings.jobs), wait=False) as is_alone:
        if not is_alone:
            do = "stop it, or give this one a queue of its own with VOXPORT_JOBS__DATABASE and VOXPORT_JOBS__BLOBS"
            raise UsageError("voxport dicom", expected="one node for a queue", got="another that runs", do=do)
        _receive(application, (address, port), senders, runs_jobs=worker)


def _senders(settings: DicomSettings, address: str, *, insecure: bool) -> list[tuple[str, Network]]:
    """Return who may send: by default this machine alone. Raises UsageError where others could, but none is named."""
    if settings.senders:
        return [(sender.aet, sender.address) for sender in settings.senders]
    if insecure:
        return [("", ip_network("0.0.0.0/0")), ("", ip_network("::/0"))]
    if ip_address(address).is_loopback:
        return [("", ip_network("127.0.0.0/8")), ("", ip_network("::1/128"))]
    raise UsageError(
        f"--host {address}",
        expected="the senders in the settings, so that not everyone may send",
        got="none",
        do="write dicom: {senders: [{aet: CT1, address: 10.0.0.7}]} into the settings file, or say --insecure",
    )


def _lock_file(jobs: JobsSettings) -> Path:
    from ...settings import data_home

    return data_home() / f"dicom-{sha256(jobs.blobs.encode()).hexdigest()[:16]}.lock"


def _receive(
    application: Application, address: tuple[str, int], senders: list[tuple[str, Network]], *, runs_jobs: bool
) -> None:
    """Receive series until this process is stopped."""
    from ...services.jobs.worker import keep_working
    from ..dicom.listener import Limits, listening
    from ..json_log import announce, check_models_folder, log_as_json

    stop = threading.Event()
    on_stop(stop.set)
    log_as_json()
    check_models_folder(application.settings)
    settings, node = application.settings.dicom, application.dicom_node()
    limits = Limits(settings.associations, settings.receive_bytes, settings.silence_seconds)

    def work() -> None:
        concurrency, served = application.settings.jobs.concurrency, application.served_models
        served.start()
        keep_working(lambda stop: application.work_on_jobs(concurrency, stop), served, stop)
        served.close()

    working = threading.Thread(target=work, name="voxport-jobs")
    try:
        if runs_jobs:
            working.start()
        with listening(node.keep, settings.aet, address, senders, limits) as port:
            announce(f"DICOM node {settings.aet} on {address[0]}:{port}")
            node.run(stop)
    finally:
        stop.set()
        if runs_jobs:
            working.join()
        application.job_queue.close()

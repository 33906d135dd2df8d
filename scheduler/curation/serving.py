"""A process that runs curation jobs which others made: `bakeoff curate serve`.

The jobs are shared by their leases: any number of these may run, and each takes the oldest job that nobody runs.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import InterfaceError, OperationalError

from db.curation import claim_next
from db.engine import engine_of, transaction
from db.errors import BakeoffError, RefusedNow
from db.logs import get_logger
from scheduler.curation.runner import run_claimed

if TYPE_CHECKING:
    from uuid import UUID

    from db.curation import Job
    from db.settings import Settings

log = get_logger(__name__)

LOOK = 2.0  # seconds between two looks for a job

#: Errors after which a job can go on as it stands.
WAITS = (RefusedNow, OperationalError, InterfaceError)


class Stopping(RefusedNow):
    """This process was asked to end; what it had begun is stored, and the job goes on elsewhere."""

    code = "stopping"


def serve(settings: Settings) -> None:
    """Run jobs until SIGTERM or SIGINT; the one that runs then is given back after its next transaction."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("Curation jobs are served", action="curation_serves")
    while not stop.is_set():
        if not _run_next(settings, stop):
            stop.wait(LOOK)
    log.info("Curation jobs are served no longer here", action="curation_serves_no_longer")


def _run_next(settings: Settings, stop: threading.Event) -> bool:
    """Take a job and run it. Returns whether there was one; nothing that goes wrong with it ends this process."""

    def progress(*_: object) -> None:
        if stop.is_set():
            raise Stopping("Asked to stop.")

    claimed: tuple[Job, UUID] | None = None
    try:
        with transaction(engine_of(settings.dsn, "curate")) as connection:
            claimed = claim_next(connection, settings.lease_seconds)
        if claimed is None:
            return False
        job, token = claimed
        log.info(f"{job.name} is taken", action="curation_taken", job=job.name)
        run_claimed(settings, job, token, progress, ends=_ends)
    except Stopping:
        log.info(f"{_name(claimed)} is given back", action="curation_given_back", job=_name(claimed))
    except WAITS as error:
        log.warning(f"{_name(claimed)} waits: {error}", action="curation_waits", job=_name(claimed))
        return False
    except BakeoffError as error:
        log.warning(f"{_name(claimed)} failed: {error}", action="curation_failed", job=_name(claimed))
        return False
    except Exception:  # one job must not end the service of the others
        log.exception(f"{_name(claimed)} failed by a fault of ours", action="curation_fault", job=_name(claimed))
        return False
    else:
        log.info(f"{job.name} is done", action="curation_done", job=job.name)
    return True


def _name(claimed: tuple[Job, UUID] | None) -> str:
    return "a look for a job" if claimed is None else claimed[0].name


def _ends(error: Exception) -> bool:
    """Whether a job fails of an error: not where the moment is wrong, or Postgres away."""
    return not isinstance(error, WAITS)

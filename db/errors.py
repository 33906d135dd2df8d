"""Every error that Bakeoff raises on purpose.

A message is one sentence or two: what was wrong, with the field and the value, and the way out. `exit_code` is what a
command ends with (docs: 0 done, 1 failed, 2 usage, 3 refused now, 4 wait timed out).

BakeoffError
├── UsageError               the caller can mend it: bad value, unknown name
│   ├── InvalidRequest       a task that can never run as it stands
│   ├── RegistryError        models.toml is wrong
│   └── SettingsError        an environment variable is wrong, or two do not fit together
├── RefusedNow               right request, wrong moment: try again later
│   ├── BacklogFull          a source has too many open tasks; knows when to come back
│   ├── NoWorker             nobody serves the capability
│   ├── SchemaBehind         the database has an older schema than this version wants
│   └── Unreachable          Postgres, Redis or the blob store does not answer
├── NotFound                 no such task, model, file
├── WaitTimeout              `--wait` ended before the task did
└── WeightsError             weights missing, or not the bytes the registry names
"""

from __future__ import annotations


class BakeoffError(Exception):
    """Something went wrong that a person can act on."""

    exit_code = 1
    code = "error"


class UsageError(BakeoffError):
    """The caller can mend it."""

    exit_code = 2
    code = "usage"


class InvalidRequest(UsageError):
    """A task that can never run as it stands: unknown capability, wrong type of file, a limit passed."""

    code = "invalid_request"


class RegistryError(UsageError):
    """`models.toml` is wrong."""

    code = "registry"


class SettingsError(UsageError):
    """A setting is wrong, or two settings do not fit together."""

    code = "settings"


class RefusedNow(BakeoffError):
    """The request is right and the moment is wrong."""

    exit_code = 3
    code = "refused"


class BacklogFull(RefusedNow):
    """A source has as many open tasks as it may have. `retry_after` is in seconds."""

    code = "backlog_full"

    def __init__(self, source: str, limit: int, retry_after: int) -> None:
        super().__init__(
            f"source {source!r} has {limit} open tasks, as many as BAKEOFF_MAX_BACKLOG allows; "
            f"try again in {retry_after} s."
        )
        self.source, self.limit, self.retry_after = source, limit, retry_after


class NoWorker(RefusedNow):
    """No live worker serves the capability."""

    code = "no_worker"


class SchemaBehind(RefusedNow):
    """The database has an older schema than this version of the code wants."""

    code = "schema"

    def __init__(self, found: str | None, wanted: str) -> None:
        super().__init__(
            f"The database has schema {found or 'none'}, and this version wants {wanted}: run `bakeoff db upgrade` "
            "first. What runs of the version before runs on."
        )


class Unreachable(RefusedNow):
    """A server that Bakeoff needs does not answer."""

    code = "unreachable"


class NotFound(BakeoffError):
    """Nothing has that name or id."""

    exit_code = 2
    code = "not_found"


class WaitTimeout(BakeoffError):
    """The wait ended before the task did; the task goes on."""

    exit_code = 4
    code = "wait_timeout"


class WeightsError(BakeoffError):
    """Weights are missing, or are not the bytes that the registry names."""

    code = "weights"

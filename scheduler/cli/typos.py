"""Variables of the environment that look like settings and are none."""

from __future__ import annotations

from db.alike import did_you_mean
from db.settings import Settings, unknown_variables
from scheduler.cli.output import errors

PREFIX = "BAKEOFF_"


def warn_of_typos() -> None:
    """Name each on standard error, with the setting that it may be meant for."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in unknown_variables():
        # without the prefix, which all of them share
        hint = did_you_mean(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known])
        hint = hint.replace("'", f"'{PREFIX}", 1).replace(" or '", f" or '{PREFIX}")
        errors.print(
            f"bakeoff: {name} is set, but no setting reads it; `bakeoff config` lists them.{hint}",
            style="yellow",
            soft_wrap=True,
        )

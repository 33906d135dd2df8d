"""What `bakeoff up` prints: where everything is, with which password, and what to do next."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from db.instance import Instance


def masked(url: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^:@/]*:)[^@]*@", r"\1***@", url)


def summary(instance: Instance, *, home: Path, logs: Path, ours: Sequence[str]) -> str:
    """Every address and password that `up` made itself (`ours`), and the next commands.

    The password of a server that somebody else runs is masked: whoever set it knows it.
    """
    database, redis = (url if url in ours else masked(url) for url in (instance.database_url, instance.redis_url))
    flower = "not started"
    if instance.flower_url:
        flower = f"{instance.flower_url}  user {instance.flower_user}  password {instance.flower_password}"
    api = f"{instance.api_url}  (tasks and results in a browser; /openapi.json)" if instance.api_url else "not started"
    names = ", ".join(child.name for child in instance.children)
    return "\n".join(
        (
            f"Bakeoff runs (pid {instance.supervisor.pid}, profile {instance.profile}).",
            "",
            f"  Postgres  {database}",
            f"  Redis     {redis}",
            f"  API       {api}",
            f"  Flower    {flower}",
            f"  Data      {home}  (kept when it stops)",
            f"  Logs      {logs}  ({names})",
            "",
            "Next, in another terminal:",
            f"  export BAKEOFF_HOME={shlex.quote(str(home))}   # unless you are in its folder",
            "  bakeoff submit --capability image-to-text/ocr --attach FILE --wait",
            "  bakeoff results",
            "  bakeoff sql 'select * from results'",
            "  bakeoff down                                   # or Ctrl-C here",
            "",
        )
    )


def ready(seconds: float, working: Sequence[str], broken: Sequence[str]) -> str:
    """The line that scripts wait for."""
    what = f"{', '.join(working)} can work." if working else "nothing can work."
    without = f" Broken: {', '.join(broken)}." if broken else ""
    return f"Ready in {seconds:.1f} s: {what}{without}"

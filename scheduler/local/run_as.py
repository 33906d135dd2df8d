"""As whom the embedded servers run. Postgres refuses to run as root, and creating a user is not ours to do.

A normal user runs them directly. Root runs them as user 65534 (`nobody`, which needs no entry anywhere) where
that user can reach the program and the folder; otherwise in a user namespace in which root appears as 65534 and
still reaches everything that is root's own. Which one works is tried, not guessed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from db.errors import BakeoffError
from scheduler.local.processes import MYSELF, RunAs

NOBODY = 65534

AS_NOBODY = RunAs(user=NOBODY)
AS_MAPPED_ROOT = RunAs(prefix=("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"))

# Really write into the folder, then really start the program.
_TRIAL = 'cd "$1" && : > trial && rm trial && exec "$2" --version'


def server_env() -> dict[str, str]:
    """Environment of a server: nothing of ours, so no secret and no PGHOST reaches it."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in kept if name in os.environ}}


def choose(folder: Path, program: Path) -> RunAs:
    """How to run this program on a data folder below `folder`. Raises `BakeoffError` with the way out."""
    if os.geteuid() != 0:
        return MYSELF
    reasons = []
    for run_as, what in ((AS_NOBODY, f"as user {NOBODY}"), (AS_MAPPED_ROOT, "in a user namespace")):
        reason = _try(run_as, folder, program)
        if reason is None:
            return run_as
        reasons.append(f"{what}: {reason}")
    raise BakeoffError(
        f"{program.name} must not run as root, and it cannot run otherwise here ({'; '.join(reasons)}). "
        "Run Bakeoff as a normal user, or set BAKEOFF_DATABASE_URL to a Postgres of your own."
    )


def _try(run_as: RunAs, folder: Path, program: Path) -> str | None:
    """None when it works, otherwise what went wrong."""
    trial = Path(tempfile.mkdtemp(prefix=".trial-", dir=folder))
    try:
        give(trial, run_as)
        done = subprocess.run(  # noqa: S603  (our own commands)
            [*run_as.prefix, "/bin/sh", "-c", _TRIAL, "sh", str(trial), str(program)],
            cwd="/",
            env=server_env(),
            user=run_as.user,
            group=run_as.group,
            extra_groups=run_as.extra_groups,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    if done.returncode == 0:
        return None
    return done.stderr.decode(errors="replace").strip().splitlines()[-1:][0] if done.stderr.strip() else "failed"


def give(path: Path, run_as: RunAs) -> None:
    """Make what lies at `path` belong to the user that a server runs as; only root can need it.

    The top goes last: when it belongs to the right user, so does everything below, also after a crash.
    """
    owner = os.geteuid() if run_as.user is None else run_as.user
    if os.geteuid() != 0 or path.lstat().st_uid == owner:
        return
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                os.chown(Path(folder) / name, owner, owner, follow_symlinks=False)
    os.chown(path, owner, owner, follow_symlinks=False)

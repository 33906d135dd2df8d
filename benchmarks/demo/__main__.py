"""`python -m benchmarks.demo`: see `run`, and docs/demo.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.demo.run import Options, make_console, run, stop_on_terminate
from db.errors import BakeoffError

DEFAULT_SEED = 1


def _options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo", description="Run Bakeoff on inputs with a truth."
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="what is rendered (default: %(default)s)")
    parser.add_argument("--images", type=int, default=36, help="images to read (default: %(default)s)")
    parser.add_argument("--recordings", type=int, default=10, help="recordings, at most 13 (default: %(default)s)")
    parser.add_argument("--summary", type=Path, default=Path("demo-summary.json"), help="default: %(default)s")
    parser.add_argument("--home", type=Path, help="folder of servers, blobs and logs (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    parser.add_argument("--profile", default="demo", help="profile of models.toml (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for all tasks (default: %(default)g)")
    given = parser.parse_args(arguments)
    if given.images < 1 or given.recordings < 1:
        parser.error("--images and --recordings are at least 1")
    return Options(**vars(given))


def main() -> int:
    """Exit code of the demo: 0 all done, 1 not, 2 usage, 130 interrupted."""
    options = _options()
    console = make_console()
    stop_on_terminate()
    try:
        return run(options, console)
    except BakeoffError as error:
        console.print(str(error), style="red", soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped.", style="yellow")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.soak --minutes 10 --kill-every 5`: does anything get lost when everything is killed in turn?"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from benchmarks.soak.run import Options, run
from db.errors import BakeoffError

if TYPE_CHECKING:
    from types import FrameType


def _options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the load (default: %(default)g)")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between faults (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="repeats the faults of a run (default: a random one, printed)")
    parser.add_argument("--rate", type=float, default=6.0, help="tasks submitted per second (default: %(default)g)")
    parser.add_argument(
        "--drain", type=float, default=120.0, help="seconds to finish at the end (default: %(default)g)"
    )
    parser.add_argument(
        "--wave", type=int, default=32, help="subtasks that leave together at most (default: %(default)d)"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--keep", action="store_true", help="keep logs and data; they are kept where a promise broke")
    given = parser.parse_args(arguments)
    if min(given.minutes, given.kill_every, given.rate, given.drain, given.wave) <= 0:
        parser.error("--minutes, --kill-every, --rate, --drain and --wave are above 0")
    if given.seed is None:
        given.seed = secrets.randbelow(1_000_000)
    return Options(**vars(given))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Exit code of the soak: 0 every promise was kept, 1 not, 2 usage, 130 interrupted."""
    options = _options()
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=120)
    signal.signal(signal.SIGTERM, _interrupt)
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

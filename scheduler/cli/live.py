"""What is drawn while a command works: on standard error, so that what a program reads stays alone on standard output.

Where standard error is no terminal, or one that cannot move its cursor (TERM=dumb), nothing is drawn.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from scheduler.cli.output import errors, harmless, is_live

if TYPE_CHECKING:
    from rich.live import Live


@contextmanager
def drawing(live: Live) -> Iterator[Live]:
    """Draw; lines of the log appear above what is drawn."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    with live:
        before = [(handler, handler.setStream(sys.stderr)) for handler in handlers]
        try:
            yield live
        finally:
            for handler, stream in before:
                if stream is not None:
                    handler.setStream(stream)


@contextmanager
def happening(first: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A spinner beside a few words; what is yielded changes the words."""
    if not shown or not is_live(errors):
        yield lambda _: None
        return
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots", text=Text(harmless(first)))
    # not redirected: what goes to standard output goes there, also where that is a file
    with drawing(Live(spinner, console=errors, transient=True, refresh_per_second=10, redirect_stdout=False)):
        yield lambda said: spinner.update(text=Text(harmless(said)))

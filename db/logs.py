"""Logs: a stable `action`, a sentence for a person, and the ids of task, subtask, model and message.

`grep TASK_ID` over the logs of all processes reads one task's life. A line about many names them all: it is of one
message, one batch or one statement, and what none of these bounds takes several lines.

What callers and models wrote stays out of them unless BAKEOFF_LOG_CONTENT says otherwise: a field `said`, the words of
exceptions, the detail of a database's error, the arguments that Celery adds. It all stands in the rows.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from traceback import format_tb
from typing import Any

import structlog

CELERY_S_TRACE = "celery.app.trace"
LONGEST_LIST = 100  # ids of a line, where no message bounds their number
#: Loggers whose lines below a warning say less than one of ours, or nothing: one for each request, one for each message
#: without what it carries.
QUIET = ("alembic", "httpx", "urllib3", "multiprocessing")
QUIET_UNLESS_DEBUGGING = ("celery.worker.strategy", CELERY_S_TRACE)
KIND = re.compile(r"[\w.]+")
BEGINS = "Traceback (most recent call last):"  # what whoever looks through logs looks for
DETAIL = "\nDETAIL:"  # where Postgres begins to quote a row


def configure_logging(level: str = "info", style: str = "auto", *, content: bool = False) -> None:
    """Send structlog and the standard library's loggers to standard error, as text or one JSON object per line.

    With `content` they quote callers and models, too.
    """
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    traces = structlog.processors.format_exc_info
    if not content:
        shared.append(_without_content)
        traces = structlog.processors.ExceptionRenderer(_bare)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    if not content:
        handler.addFilter(_without_words)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                traces,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name in QUIET if level == "debug" else (*QUIET, *QUIET_UNLESS_DEBUGGING):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_content(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("said", None)
    event.pop("data", None)  # Celery's: the arguments of a task
    event["event"] = str(event.get("event", "")).partition(DETAIL)[0]
    return event


def _without_words(record: logging.LogRecord) -> bool:
    """Of an exception that Celery tells of, its kind."""
    if record.name == CELERY_S_TRACE and isinstance(record.args, Mapping) and "exc" in record.args:
        record.args = {**record.args, "exc": kind_of(record.args["exc"])}
    return True


def kind_of(error: object) -> str:
    """The class that an exception's `repr` begins with."""
    kind = KIND.match(str(error))
    return kind[0] if kind else "an error"


def _bare(exc_info: structlog.typing.ExcInfo) -> str:
    """A traceback with the kinds of its exceptions, without their words."""
    chain = [
        f"{BEGINS}\n{''.join(format_tb(error.__traceback__))}{type(error).__module__}.{type(error).__qualname__}"
        for error in _causes(exc_info[1])
    ]
    return "\n\nafter:\n\n".join(chain)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; call it as `log.info("sentence", action="candidate_finished", model=...)`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def ids(of: Iterable[object]) -> list[str]:
    """Ids for a line, each once."""
    return list(dict.fromkeys(map(str, of)))


def portions(of: Iterable[object]) -> list[list[str]]:
    """Ids for as many lines as it takes."""
    every = ids(of)
    return [every[start : start + LONGEST_LIST] for start in range(0, len(every), LONGEST_LIST)]

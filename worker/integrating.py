"""`bakeoff.integrate_task`: write one task's answer from the chosen results."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from uuid import UUID

from db.endings import store_answer
from db.engine import transaction
from db.errors import RegistryError
from db.states import TaskState
from db.thinking import Thought, step_results
from worker.app import app
from worker.cleaning import clean_json, clean_text
from worker.integrators import Integrated
from worker.process import ModelProcess, this_process
from worker.thinking import Store, think
from worker.traces import sender_of


@app.task(name="bakeoff.integrate_task", bind=True, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def integrate_task(self: Any, *, task: str) -> None:
    """Write one task's answer, where it still waits for it."""
    process = this_process()
    think(
        process,
        UUID(self.request.id),
        UUID(task),
        TaskState.INTEGRATING,
        partial(integrate, process),
        partial(_timeout, process),
        sender_of(self.request),
    )


def _timeout(process: ModelProcess, thought: Thought) -> float:
    entry = process.registry.integrators.get(_name(thought))
    return entry.timeout if entry else process.settings.start_allowance


def _name(thought: Thought) -> str:
    return str((thought.plan or {}).get("integrator"))


def integrate(process: ModelProcess, thought: Thought) -> Store:
    """What is to be stored: the answer, and who wrote it. Raises what the integrator raises."""
    name, started = _name(thought), time.monotonic()
    if name not in process.registry.integrators:
        raise RegistryError(f"The integrator {name!r} has left the registry.")
    with transaction(process.engine) as connection:
        results = step_results(connection, thought.id)
    written = process.integrator(name).write(thought.request, results)
    integration = {
        "integrator": name,
        "method": written.method,
        "model": written.model,
        "prompt_version": written.prompt_version,
        "usage": dict(written.usage),
        "seconds": round(time.monotonic() - started, 3),
    }
    answer = clean_text(joined(written, process.settings.max_output_chars))
    return lambda connection: store_answer(connection, thought.id, thought.token, answer, clean_json(integration))


def joined(written: Integrated, most: int) -> str:
    """The answer and its notes in at most so many characters: the text is cut, what it is from and lacks is not."""
    notes = f"\n\n{written.notes}"[:most] if written.notes else ""
    return written.text[: most - len(notes)] + notes

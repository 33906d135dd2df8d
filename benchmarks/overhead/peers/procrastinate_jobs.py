"""(d) procrastinate: three jobs and a fan-in job in Postgres, with the rows of (b).

It has no join: whoever stores the last candidate defers the judge's job, which the database decides.
"""

from __future__ import annotations

import procrastinate

from benchmarks.overhead.driver import JUDGE, MODELS, answer, pick, request
from benchmarks.overhead.peers.common import (
    DATABASE_URL,
    Storing,
    store_candidate_and_count,
    store_request,
    store_verdict,
    stored_candidates,
)

# Defaults: LISTEN, one job at a time, finished jobs are kept.
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE_URL))


@app.task  # type: ignore[untyped-decorator] # see celery_chord.py
def candidate(key: str, model: str, text: str) -> None:
    """A model's answer, stored."""
    if store_candidate_and_count(key, model, answer(text)) == 0:
        judge.defer(key=key)


@app.task(queue=JUDGE)  # type: ignore[untyped-decorator] # see celery_chord.py
def judge(key: str) -> None:
    """Pick one and store it."""
    outputs = stored_candidates(key)
    answers = [outputs[model] for model in MODELS]
    place = pick(answers)
    store_verdict(key, MODELS[place], answers[place])


class Jobs(Storing):
    """Stores a request, then defers its jobs."""

    def prepare(self) -> None:
        """Make procrastinate's tables, too."""
        super().prepare()
        app.open()
        if self._connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone() == (None,):
            app.schema_manager.apply_schema()
        self._queues = {model: candidate.configure(queue=model) for model in MODELS}

    def submit_one(self, number: int) -> str:
        text = request(number)
        key = store_request(text)
        for model, queue in self._queues.items():
            queue.defer(key=key, model=model, text=text)
        return key

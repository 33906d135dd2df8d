"""(b) The plain way: the chord of (a), and a row for the request, each candidate and the verdict through the ORM."""

from __future__ import annotations

from celery import chord

from benchmarks.overhead.driver import JUDGE, MODELS, answer, pick, request
from benchmarks.overhead.peers.celery_chord import app
from benchmarks.overhead.peers.common import Storing, store_candidate, store_request, store_verdict


@app.task  # type: ignore[untyped-decorator] # celery has no types
def stored_candidate(key: str, model: str, text: str) -> str:
    """A model's answer, stored."""
    output = answer(text)
    store_candidate(key, model, output)
    return output


@app.task(ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def stored_judge(answers: list[str], key: str) -> None:
    """Pick one and store it."""
    place = pick(answers)
    store_verdict(key, MODELS[place], answers[place])


class StoredChord(Storing):
    """Stores a request, then sends its chord."""

    def submit_one(self, number: int) -> str:
        text = request(number)
        key = store_request(text)
        header = [stored_candidate.s(key, model, text).set(queue=model) for model in MODELS]
        chord(header)(stored_judge.s(key).set(queue=JUDGE))
        return key

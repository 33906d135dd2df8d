"""(a) A bare Celery chord of three and a callback. Nothing is stored but what Celery itself keeps in Redis."""

from __future__ import annotations

from celery import Celery, chord

from benchmarks.overhead.driver import JUDGE, MODELS, answer, pick, request
from benchmarks.overhead.peers.common import REDIS_URL, Counting, count_finished

app = Celery("peers", broker=REDIS_URL, backend=REDIS_URL)
# Celery's defaults, which are its fast side: early acknowledgement, four messages prefetched, no events, and a callback
# whose result nobody reads is not stored. Late acknowledgement, which survives a killed worker, costs more.


@app.task  # type: ignore[untyped-decorator] # what decorates is unknown to mypy here
def candidate(text: str) -> str:
    """A model's answer."""
    return answer(text)


@app.task(ignore_result=True)  # type: ignore[untyped-decorator] # what decorates is unknown to mypy here
def judge(answers: list[str]) -> None:
    """Pick one."""
    pick(answers)
    count_finished()


class Chord(Counting):
    """Sends chords."""

    def submit_one(self, number: int) -> str:
        text = request(number)
        chord([candidate.s(text).set(queue=model) for model in MODELS])(judge.s().set(queue=JUDGE))
        self.submitted += 1
        return ""

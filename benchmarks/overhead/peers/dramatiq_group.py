"""(c) A dramatiq group with a completion callback: with the writes of (b), and with nothing stored.

A callback is not given the group's results. The one with rows reads them from the table; the bare one keeps them in a
Redis list of its own, which is cheaper than dramatiq's result backend and a poll per result.
"""

from __future__ import annotations

from uuid import uuid4

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.overhead.driver import JUDGE, MODELS, answer, pick, request
from benchmarks.overhead.peers.common import (
    REDIS_URL,
    Counting,
    Storing,
    count_finished,
    redis_client,
    store_candidate,
    store_request,
    store_verdict,
    stored_candidates,
)

# dramatiq's defaults: acknowledged when done, the usual middleware, an idle consumer that looks ever less often.
broker = RedisBroker(url=REDIS_URL)
broker.add_middleware(GroupCallbacks(RedisBackend(url=REDIS_URL)))
dramatiq.set_broker(broker)
for queue in (*MODELS, JUDGE):
    broker.declare_queue(queue)


@dramatiq.actor  # type: ignore[untyped-decorator] # see celery_chord.py
def stored_candidate(key: str, model: str, text: str) -> None:
    """A model's answer, stored."""
    store_candidate(key, model, answer(text))


@dramatiq.actor(queue_name=JUDGE)  # type: ignore[untyped-decorator] # see celery_chord.py
def stored_judge(key: str) -> None:
    """Pick one and store it."""
    outputs = stored_candidates(key)
    answers = [outputs[model] for model in MODELS]
    place = pick(answers)
    store_verdict(key, MODELS[place], answers[place])


@dramatiq.actor  # type: ignore[untyped-decorator] # see celery_chord.py
def candidate(key: str, text: str) -> None:
    """A model's answer, in a list."""
    redis_client().rpush(key, answer(text))


@dramatiq.actor(queue_name=JUDGE)  # type: ignore[untyped-decorator] # see celery_chord.py
def judge(key: str) -> None:
    """Pick one."""
    pick([str(output) for output in redis_client().lrange(key, 0, -1)])
    redis_client().delete(key)
    count_finished()


def _on(queue: str, message: dramatiq.Message) -> dramatiq.Message:
    return message.copy(queue_name=queue)


class StoredGroup(Storing):
    """Stores a request, then sends its group."""

    def submit_one(self, number: int) -> str:
        text = request(number)
        key = store_request(text)
        group = dramatiq.group([_on(model, stored_candidate.message(key, model, text)) for model in MODELS])
        group.add_completion_callback(stored_judge.message(key))
        group.run()
        return key


class Group(Counting):
    """Sends groups."""

    def submit_one(self, number: int) -> str:
        text, key = request(number), str(uuid4())
        group = dramatiq.group([_on(model, candidate.message(key, text)) for model in MODELS])
        group.add_completion_callback(judge.message(key))
        group.run()
        self.submitted += 1
        return key

"""(e) taskiq with its Redis list broker: at most once, and nothing is stored.

It has no join: outputs go to a Redis list, and whoever makes it three long sends the judge's message.
"""

from __future__ import annotations

import asyncio
from functools import cache
from uuid import uuid4

import redis.asyncio
from taskiq_redis import ListQueueBroker

from benchmarks.overhead.driver import JUDGE, MODELS, answer, pick, request
from benchmarks.overhead.peers.common import COUNTER, REDIS_URL, Counting

# A broker reads one list; each worker process is started with the one of its queue. The broker blocks without end where
# redis-py 8 gives up after 5 s unless it is told otherwise. Defaults for everything else.
brokers = {name: ListQueueBroker(REDIS_URL, queue_name=name, socket_timeout=None) for name in (*MODELS, JUDGE)}
broker_m0, broker_m1, broker_m2, broker_judge = brokers.values()


@cache
def connections() -> redis.asyncio.Redis:
    """The connections of this process."""
    return redis.asyncio.Redis.from_url(REDIS_URL, decode_responses=True)


async def candidate(key: str, text: str) -> None:
    """A model's answer, in a list."""
    if await connections().rpush(key, answer(text)) == len(MODELS):
        await judge_task.kiq(key)


async def judge(key: str) -> None:
    """Pick one."""
    pick([str(output) for output in await connections().lrange(key, 0, -1)])
    await connections().delete(key)
    await connections().incr(COUNTER)


candidate_tasks = [brokers[model].register_task(candidate, task_name=f"candidate.{model}") for model in MODELS]
judge_task = broker_judge.register_task(judge, task_name=JUDGE)


class Kicks(Counting):
    """Sends three messages per task."""

    def prepare(self) -> None:
        """One event loop for everything."""
        super().prepare()
        self._loop = asyncio.new_event_loop()

    def submit(self, numbers: range) -> None:
        """Without a change of loop per task."""
        self._loop.run_until_complete(self._submit(numbers))

    def submit_one(self, number: int) -> str:
        self.submit(range(number, number + 1))
        return ""

    async def _submit(self, numbers: range) -> None:
        for number in numbers:
            text, key = request(number), str(uuid4())
            for task in candidate_tasks:
                await task.kiq(key, text)
            self.submitted += 1

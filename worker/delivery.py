"""A Redis transport that loses no message with the worker that was about to get it.

kombu pops a message (BRPOP) and then notes it as unacknowledged, in two steps: a worker killed in between, with the
reply still in its socket, takes the message with it. Messages of ours have rows that send them again; a
`bakeoff.submit` has nothing else. So its worker takes and notes in one step, a script in Redis, and blocks for the next
message without taking it.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from worker import thrift

#: Keys: the queues, then kombu's index and hash of unacknowledged messages. Argument: the time now.
TAKE = """
for place = 1, #KEYS - 2 do
  local message = redis.call('RPOP', KEYS[place])
  if message then
    local sound, read = pcall(cjson.decode, message)
    if sound then
      local info = read.properties.delivery_info
      local noted = '[' .. message .. ',' .. cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key) .. ']'
      redis.call('ZADD', KEYS[#KEYS - 1], ARGV[1], read.properties.delivery_tag)
      redis.call('HSET', KEYS[#KEYS], read.properties.delivery_tag, noted)
    end
    return {KEYS[place], message}
  end
end
return false
"""


class Channel(thrift.Channel):
    """Takes and notes in one step; where nothing waits, blocks on one queue after the other until something does."""

    _waits = False  # for a message, which this leaves where it is

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        if self._waits:
            seconds = self.brpop_timeout if timeout is None else timeout
            connection.send_command("BLMOVE", queues[0], queues[0], "RIGHT", "RIGHT", seconds or 0)
            self._queue_cycle.rotate(queues[0])
        else:
            keys = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
            keys += [self.unacked_index_key, self.unacked_key]
            connection.send_command("EVAL", TAKE, len(keys), *keys, time.time())

    def _brpop_read(self, **options: Any) -> bool:
        waited, self._waits = self._waits, False
        try:
            reply = self._reply("BLMOVE" if waited else "EVAL", options)
            if waited or not reply:
                self._waits = not waited
                raise Empty
            queue = bytes_to_str(reply[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection._deliver(loads(bytes_to_str(reply[1])), queue)  # noqa: SLF001 - as kombu's own
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _reply(self, command: str, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next turn connects again
            raise


class Transport(redis.Transport):  # type: ignore[misc] # kombu has no types
    """For workers whose messages exist nowhere else."""

    Channel = Channel

"""A scheduler that ends without a word between the commit of a wave and the last of its messages.

python -m tests.faults.crashing_scheduler WAVE MESSAGES: at its WAVE-th wave, after so many messages of it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from kombu import Producer

from db.logs import configure_logging
from db.settings import load_settings
from scheduler.loop import Scheduler
from scheduler.publishing import Publisher

EXIT_CODE = 70


def crash_at(wave: int, messages: int) -> None:
    """Let the real scheduler crash there."""
    waves = 0
    send_wave, publish = Publisher.send_wave, Producer.publish

    def crashing_publish(self: Producer, *arguments: Any, **named: Any) -> Any:
        nonlocal messages
        if messages == 0:
            os._exit(EXIT_CODE)
        messages -= 1
        return publish(self, *arguments, **named)

    def counting_send_wave(self: Publisher, *arguments: Any, **named: Any) -> None:
        nonlocal waves
        waves += 1
        if waves == wave:
            Producer.publish = crashing_publish
        send_wave(self, *arguments, **named)

    Publisher.send_wave = counting_send_wave  # type: ignore[method-assign]


if __name__ == "__main__":
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    crash_at(int(sys.argv[1]), int(sys.argv[2]))
    Scheduler(settings).run()

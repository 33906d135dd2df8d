"""The counter of chords while Redis is away."""

from __future__ import annotations

import socket

from celery import Celery
from celery.app.task import Context

from worker.coordination import ChordCounter


def test_a_part_that_cannot_be_counted_is_no_error_of_the_part() -> None:
    # given a Redis that is not there
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    counter = ChordCounter(app=Celery("test"), url=f"redis://127.0.0.1:{port}/0")
    chord = {"task": "judge", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "chord_size": 2}

    # when a part of a chord ends, then nothing is raised
    counter.on_chord_part_return(Context({"id": "a", "group": "g", "chord": chord}), "SUCCESS", None)

"""States of tasks, subtasks, candidates, models and workers, what a judge saw of a file, one line of meaning each."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """pending → planning → running → integrating → done | failed | expired | cancelled."""

    PENDING = "pending"  # committed; nobody has looked at it yet
    PLANNING = "planning"  # a planner holds its lease, or will
    RUNNING = "running"  # its subtasks exist
    INTEGRATING = "integrating"  # every subtask is terminal; the answer is being written
    DONE = "done"  # the answer is stored
    FAILED = "failed"  # no answer, `error` says why
    EXPIRED = "expired"  # the deadline passed first
    CANCELLED = "cancelled"  # somebody asked

    @property
    def final(self) -> bool:
        """Final is final: a retry is a new task."""
        return self in FINAL_TASK


FINAL_TASK = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.EXPIRED, TaskState.CANCELLED})


class SubtaskState(StrEnum):
    """blocked → ready → running → judging → done | failed | skipped | expired | cancelled."""

    BLOCKED = "blocked"  # waits for the results of other subtasks
    READY = "ready"  # its inputs are there; candidates may be chosen
    RUNNING = "running"  # candidates are chosen, not all of them judged
    JUDGING = "judging"  # a judge holds its lease
    DONE = "done"  # a verdict is stored
    FAILED = "failed"  # no candidate succeeded, `error` keeps every reason
    SKIPPED = "skipped"  # a subtask it needs did not succeed
    EXPIRED = "expired"  # the deadline passed below the quorum
    CANCELLED = "cancelled"  # its task was cancelled


FINAL_SUBTASK = frozenset(
    {SubtaskState.DONE, SubtaskState.FAILED, SubtaskState.SKIPPED, SubtaskState.EXPIRED, SubtaskState.CANCELLED}
)


class CandidateState(StrEnum):
    """chosen → sent → running → done | error | dead | cancelled; a retry goes back to chosen with `not_before`."""

    CHOSEN = "chosen"  # a selector proposed the model; no message carries it yet
    SENT = "sent"  # a message with its id was published, or is about to be
    RUNNING = "running"  # a worker holds its lease
    DONE = "done"  # its output is stored
    ERROR = "error"  # the input or the model was at fault, `error` says how
    DEAD = "dead"  # its worker was lost `max_attempts` times
    CANCELLED = "cancelled"  # no longer wanted: task cancelled, or the verdict came first


FINAL_CANDIDATE = frozenset({CandidateState.DONE, CandidateState.ERROR, CandidateState.DEAD, CandidateState.CANCELLED})


class ModelState(StrEnum):
    """Whether the scheduler may choose a model."""

    ACTIVE = "active"  # chosen and sent
    PAUSED = "paused"  # an operator stopped it: neither chosen nor sent
    DRAINING = "draining"  # what is sent finishes, nothing new is chosen
    SUSPENDED = "suspended"  # the breaker stopped it, `reason` says why


class WorkerState(StrEnum):
    """What a worker process says of itself; alive means a heartbeat younger than `BAKEOFF_WORKER_TIMEOUT`."""

    STARTING = "starting"  # the process runs; its model is not loaded yet
    READY = "ready"  # the model is loaded and warm
    BROKEN = "broken"  # the model could not be loaded, `error` says why
    STOPPING = "stopping"  # takes no new message


class ErrorKind(StrEnum):
    """Whose fault it was, which decides what happens next."""

    INPUT = "input"  # this input cannot be read: never retried
    MODEL = "model"  # the model failed: retried with a delay
    MEMORY = "memory"  # out of memory: retried in a smaller batch
    WORKER = "worker"  # the process was lost: an attempt is charged


class Seen(StrEnum):
    """What a judge had of a subtask's files."""

    IMAGE = "image"  # the pictures themselves
    AUDIO = "audio"  # the recordings themselves
    TRANSCRIPT = "transcript"  # what a model heard in them
    CAPTION = "caption"  # what a model saw in them
    TEXT = "text"  # what a model read in them
    UNSEEN = "unseen"  # nothing: it judged by the words alone

"""What the columns of the views mean: they are a contract, and a database keeps no words for them."""

from __future__ import annotations

ABOUT = {
    "results": "One row per task. Poll it by `task_id`, by `source`, or in pages by (`finished_at`, `task_id`).",
    "candidates": "One row per model asked, whatever came of it.",
    "verdicts": "One row per subtask that was decided.",
    "backlog": "One row per queue: what waits for its workers. Autoscalers read it.",
}
#: of a view's own → of all views
MEANINGS: dict[str, dict[str, str]] = {
    "results": {
        "source": "who asked: a name that the caller gives",
        "status": "pending, planning, running, integrating, or at the end done, failed, expired, cancelled",
        "request": "the caller's words",
        "answer": "the answer; there once it is done",
        "artifacts": "files that belong to the answer; no packaged model makes any",
        "winners": "per subtask by name: who won",
        "confidence": "the least of its verdicts' confidences, where they have one",
        "fallback": "whether a choice was made without a judge",
        "error": "why it failed, or what of it did: `code`, `message`",
        "retry_of": "the task that this one asks again",
        "finished_xid": "its place in the order of commits: page by it below `pg_snapshot_xmin(pg_current_snapshot())`",
        "needs_review": "whether a person should look at it",
    },
    "candidates": {
        "candidate_id": "of this row",
        "model": "name in the registry",
        "status": "chosen, sent, running, or at the end done, error, dead, cancelled",
        "rank": "its place among those chosen, 0 first",
        "proposed_by": "selectors that proposed it, each with the rank that it gave",
        "output": "what the model said",
        "detail": "the same for programs: boxes, words, probabilities",
        "usage": "what it cost: tokens, pixels, seconds of sound",
        "error": "why there is no output: `kind`, `code`, `message`",
        "seconds": "its share of the time of its batch",
        "attempt": "how often it has been in a model",
        "cached": "whether it was answered from a stored output",
        "winner": "whether it won its subtask",
    },
    "verdicts": {
        "verdict_id": "of this row",
        "winner": "model that won",
        "winner_id": "candidate that won",
        "ranking": "models, the best first",
        "scores": "per model, higher is better, in the unit of the method",
        "method": "how it was decided",
        "judge": "who decided: name in the registry",
        "judge_model": "model that the judge asked",
        "prompt_version": "prompt that it was asked with",
        "reason": "why, in a sentence",
        "confidence": "a probability from 0 to 1, where the method gives one",
        "fallback": "whether the judges had failed and the selectors' first choice stands",
        "seconds": "how long judging took",
        "seen": "what the judge had of the subtask's files",
        "checks": "which answers failed which checks of `expect`, and why",
        "failed_judges": "who was asked before, and why it did not decide",
    },
    "backlog": {
        "queue": "name of the Celery queue",
        "model": "model that the queue is of; empty for the judges' queue and the like",
        "waiting": "what is not finished there, and ready subtasks that it could take",
        "running": "of those, what a worker has now",
        "oldest": "when the oldest of them was made",
    },
    "": {
        "task_id": "the task",
        "subtask_id": "the subtask",
        "capability": "what was asked for, with its variant",
        "created_at": "when the row was made",
        "finished_at": "when it ended",
    },
}


def meaning(view: str, column: str) -> str:
    """What a column of a view means, in a few words; nothing where nobody has said so."""
    return MEANINGS.get(view, {}).get(column) or MEANINGS[""].get(column, "")

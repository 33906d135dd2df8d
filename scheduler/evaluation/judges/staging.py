"""From cases to tasks: answers as models that replay them, ranks as scores of a registry, a judge per sitting.

A model of the registry bears the name that the judge is to read, and the file says what it answers to which request.
Where one name gave two answers to the same words, a further model, its name with a number behind it, gives the second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from scheduler.evaluation.running import as_toml
from scheduler.submit import NewTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from db.registry import JudgeEntry, Registry
    from scheduler.evaluation.judges.cases import Case
    from scheduler.evaluation.judges.rows import Kind

PROFILE = "evaluate-judges"
SOURCE = "evaluate-judges"
WAVE = 64
MOST_ANSWERS = 16  # that one subtask may have


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A case as it is submitted. `answers`: the models that are asked, first rank first, and whose answer each is."""

    case: Case
    task: NewTask
    answers: Mapping[str, UUID]


class Stage:
    """What has to be replayed, and the tasks that ask for it."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._said: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        self._orders: dict[tuple[str, ...], str] = {}  # models by rank → the score that ranks them so

    def put(self, case: Case, judge: str) -> Staged:
        """Make a task of a case. Raises `UsageError` where no queue can ask it."""
        request = case.question.request
        if not request.strip():
            raise UsageError(
                f"--queue: the rows say nothing in words ({self._kind.note or self._kind.capability}), and stored "
                "outputs are found by the words of a request; leave --queue out for this set."
            )
        if len(case.keys) > MOST_ANSWERS:
            raise UsageError(f"--queue: {len(case.keys)} answers to one request; a subtask has {MOST_ANSWERS} at most.")
        answers = {self._model(answer.model, request.strip(), answer.text): answer for answer in case.question.answers}
        told = [{"model": name, "output": answer.text} for name, answer in answers.items()]
        row = {"id": f"case-{len(self._lines)}", "instruction": request, "candidates": told}
        self._lines.append(json.dumps(row))
        order = self._orders.setdefault(tuple(answers), f"order{len(self._orders)}")
        options = {
            "models": list(answers),
            "candidates": len(answers),
            "selectors": [f"benchmark:{order}"],
            "judge": judge,
            "quorum": len(answers),
        }
        task = NewTask(request=request, capability=self._kind.capability, source=SOURCE, options=options)
        return Staged(case=case, task=task, answers={name: answer.id for name, answer in answers.items()})

    def _model(self, name: str, request: str, text: str) -> str:
        number = 1
        while self._said.setdefault((numbered(name, number), request), text) != text:
            number += 1
        return numbered(name, number)

    @property
    def models(self) -> list[str]:
        """Everybody who gives an answer."""
        return sorted({name for name, _ in self._said})

    def write(self, file: Path) -> None:
        """Write what is replayed. Only what a judge may read is in it."""
        file.write_text("\n".join(self._lines) + "\n", encoding="utf-8")

    def registry(self, file: Path, judges: Mapping[str, JudgeEntry], known: Registry) -> str:
        """The registry of the run, as TOML: models that replay `file`, the judges, and the models that these ask."""
        names = self.models
        first = next(iter(judges))
        asked = [known.model(name) for name in sorted({name for entry in judges.values() for name in entry.asks})]
        about = {"instruction": self._kind.instruction, "judge": first}
        capabilities = {
            model.capability: {"input": known.capabilities[model.capability].input} | about for model in asked
        }
        return as_toml(
            {
                "profiles": {PROFILE: {"models": names}},
                "capabilities": capabilities | {self._kind.capability: {"input": "text"} | about},
                "judges": {name: _plain(entry) for name, entry in judges.items()},
                "models": {name: self._entry(name, file) for name in names} | {one.name: _plain(one) for one in asked},
            }
        )

    def _entry(self, name: str, file: Path) -> dict[str, Any]:
        scores = {order: len(models) - models.index(name) for models, order in self._orders.items() if name in models}
        return {
            "capability": self._kind.capability,
            "backend": "replay",
            "metadata": {"scores": scores},
            "max_batch": WAVE,
            "window": 16,
            "memory_mb": 16,
            "params": {"file": str(file), "model": name},
        }


def numbered(name: str, number: int) -> str:
    """The name of the model that gives the `number`-th answer under a name to the same words."""
    return name if number == 1 else f"{name}.{number}"


def judges_named(entries: Sequence[JudgeEntry]) -> dict[str, JudgeEntry]:
    """A name for each."""
    return {f"judge-{number}": entry for number, entry in enumerate(entries, 1)}


def _plain(entry: Any) -> dict[str, Any]:
    """An entry as it stands in a registry, under its name."""
    out: dict[str, Any] = entry.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return {key: value for key, value in out.items() if key != "name"}

"""Plans: a request as a DAG of steps. What a planner writes, what a caller may write, what `task.plan` keeps.

A plan is JSON, read by this schema and by nothing else; it is never evaluated. Whether it can run here (capabilities,
types along the edges, cycles) is `worker.planners.checking`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from db.errors import InvalidRequest
from db.registry import Capability, MediaKind

StepId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$")]


class PlanError(InvalidRequest):
    """A plan that cannot run; `reasons` are sentences, one per fault, `written` what a language model wrote for it."""

    code = "invalid_plan"

    def __init__(self, reasons: list[str], written: Sequence[str] = ()) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons
        self.written = tuple(written)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OfRequest(_Strict):
    """The caller's own words: `{"request": true}`."""

    request: Literal[True] = True


class OfAttachment(_Strict):
    """A file of the task, counted from 0: `{"attachment": 0}`."""

    attachment: Annotated[int, Field(ge=0, le=255)]


class OfText(_Strict):
    """Words of the plan itself: `{"text": "Summarize this:"}`."""

    text: Annotated[str, Field(min_length=1, max_length=20_000)]


class OfOutput(_Strict):
    """What another step's winner said: `{"output": "transcribe"}`. The step waits for it."""

    output: StepId


def _kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return next((key for key in ("request", "attachment", "text", "output") if key in keys), "request")


Reference = Annotated[
    Annotated[OfRequest, Tag("request")]
    | Annotated[OfAttachment, Tag("attachment")]
    | Annotated[OfText, Tag("text")]
    | Annotated[OfOutput, Tag("output")],
    Discriminator(_kind),
]


class Step(_Strict):
    """One step: a capability, what it reads (in this order), and steps that must be done first for another reason.

    `depends_on` is recomputed from the inputs when a plan is checked. `options` are those of a task that a single
    subtask can have (`scheduler.requests.STEP_OPTIONS`); what a step leaves out, its task's options say. But what the
    task expects of an answer is asked of the steps alone whose output no other step reads.
    """

    id: StepId
    capability: Capability
    inputs: Annotated[tuple[Reference, ...], Field(max_length=64)]
    depends_on: Annotated[tuple[StepId, ...], Field(max_length=255)] = ()
    options: dict[str, Any] = {}

    @property
    def reads(self) -> tuple[str, ...]:
        """Ids of the steps whose output it reads, in the order of its inputs, each once."""
        return tuple(dict.fromkeys(item.output for item in self.inputs if isinstance(item, OfOutput)))


class Plan(_Strict):
    """Steps in any order; ids are unique once it is checked."""

    steps: Annotated[tuple[Step, ...], Field(max_length=256)] = ()

    @property
    def inner(self) -> frozenset[str]:
        """Ids of the steps whose output another one reads: they are not what the caller gets."""
        return frozenset(name for step in self.steps for name in step.reads)

    @property
    def edges(self) -> set[tuple[str, str]]:
        """(before, after) for every step that waits for another."""
        return {(before, step.id) for step in self.steps for before in (*step.reads, *step.depends_on)}


class Tool(_Strict):
    """A capability as a planner sees it. `input` and `output` are kinds: text, image, audio, labels, vector."""

    name: str
    input: MediaKind = "text"
    output: str = "text"
    description: str = ""
    files: int = 1  # attachments that one step may read

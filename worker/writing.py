"""Text from a language model, for planners and integrators: one prompt, one reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.errors import BakeoffError, Unreachable
from worker.backends import Failure, Input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.backends import Backend


AWAY = "TryLater"  # code of a failure where a server is busy or does not answer: nobody's request is at fault


class WritingError(BakeoffError):
    """The language model wrote nothing; the message is its own sentence."""

    code = "writing"

    def __init__(self, model: str, failure: Failure) -> None:
        super().__init__(f"{model}: {failure.message}")
        self.model, self.failure = model, failure


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote, and what it cost."""

    text: str
    usage: Mapping[str, float] = field(default_factory=dict)


def write(backend: Backend, prompt: str, *, max_new_tokens: int, schema: Mapping[str, Any] | None = None) -> Written:
    """Ask for a reply of at most so many tokens, bound to a JSON schema where the backend can be bound.

    Raises `WritingError` where the model fails.
    """
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if schema is not None and backend.constrains:
        options["json_schema"] = schema
    (reply,) = backend.run([Input(text=prompt, options=options)])
    if isinstance(reply, Failure):
        if reply.code == AWAY:
            raise Unreachable(f"{backend.model.name}: {reply.message}")
        raise WritingError(backend.model.name, reply)
    return Written(text=reply.text or "", usage=reply.usage)

"""A language model as judges ask it: with what there is of the subtask's files, and by its replies where it tells no
probabilities.

Judges ask for the log-probability of each option. Where a model writes and tells none, it is asked to reply in JSON
that names one of the options, and what it names counts `SURE`. A reply that names none is asked for once more, without
the JSON schema, which some servers do not know; then the judge has failed.

What is put before and after a judge's own prompt is a versioned prompt, too: `choice-1+exhibits-1+reply-1`. A subtask
without files that a model with probabilities judges is asked the judge's own prompt, byte for byte.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import Unreachable
from db.logs import get_logger
from db.states import ErrorKind, Seen
from worker.backends import Backend, BadInput, Failure, Input, LanguageModel, NoProbabilities, SeeingModel
from worker.judges.checking import unfenced
from worker.judges.hostile import examine
from worker.judges.prompting import render
from worker.templates import tag_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.judges.exhibits import Exhibit, Exhibits

log = get_logger(__name__)

EXHIBITS, REPLY = "exhibits-1", "reply-1"
SURE = 0.9  # what a reply counts for what it names; several orders of a question make it more or less
REPLY_TOKENS = 64
LONGEST_SAID = 4000  # characters of a transcript, caption or text that a judge reads
TAG = tag_of(("answer", "task", "file"))
NAMES = {"image": "picture", "audio": "recording"}


class UnreadableReply(ValueError):
    """A model's reply named none of the options, twice."""


@dataclass(kw_only=True)
class Asked:
    """What was asked about one question, so that its verdict can say so."""

    seen: Seen | None = None  # None where the model was not asked, or the subtask has no files
    exhibits: bool = False  # whether they stood in the prompt
    replies: int = 0  # that were read in the place of probabilities
    unparseable: int = 0  # of them

    @property
    def prompts(self) -> tuple[str, ...]:
        """Versions of what was put around the judge's own prompt."""
        return (*((EXHIBITS,) if self.exhibits else ()), *((REPLY,) if self.replies else ()))


class Asking:
    """A `LanguageModel` around another. `about` says which question is being asked."""

    def __init__(self, model: LanguageModel) -> None:
        self.identity = model.identity
        self._model = model
        self._by_reply = False
        self._exhibits: Exhibits | None = None
        self._asked = Asked()

    @contextmanager
    def about(self, exhibits: Exhibits | None) -> Iterator[Asked]:
        """What is asked within is about a question with these exhibits; what comes out says how it was asked."""
        self._exhibits, self._asked = exhibits, Asked()
        try:
            yield self._asked
        finally:
            self._exhibits = None

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`. Raises `UnreadableReply` where the model replies, and names none of the options,
        `BadInput` where it refuses what it is asked about."""
        if self._exhibits is not None:
            self._asked.seen, self._asked.exhibits = self._exhibits.seen, True
            prompts = [_with_exhibits(prompt, self._exhibits.items) for prompt in prompts]
        if not self._by_reply:
            try:
                return self._told(prompts, options)
            except NoProbabilities as error:
                log.info(f"Verdicts are read from replies: {error}", action="judge_reads_replies", model=self.identity)
                self._by_reply = True
        chosen = self._replies(prompts, options)
        return [[_logprob(option == one, len(options)) for option in options] for one in chosen]

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`. A likelihood is told what other models said of the files, and shown none."""
        items = self._exhibits.items if self._exhibits is not None else ()
        quoted = [item for item in items if item.said]
        if items and self._asked.seen is None:
            self._asked.seen = quoted[0].said[0].what if len(quoted) == len(items) else Seen.UNSEEN
        if quoted:
            self._asked.exhibits = True
            prompt = _with_exhibits(prompt, quoted, shown=False)
        return self._model.continuation_logprobs(prompt, continuations)

    def _told(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        files = self._exhibits.files if self._exhibits is not None else ()
        if files and isinstance(self._model, SeeingModel):
            return self._model.option_logprobs_about(files, prompts, options)
        return self._model.option_logprobs(prompts, options)

    def _replies(self, prompts: Sequence[str], options: Sequence[str]) -> list[str]:
        """The option that the reply to each prompt names."""
        if not isinstance(self._model, Backend):
            raise NoProbabilities(f"{self.identity} tells no probabilities and writes no replies")
        asked = [render(REPLY, prompt=prompt, options=options) for prompt in prompts]
        first = self._written(asked, {"json_schema": _schema(options)})
        chosen = [_read(reply, options) for reply in first]
        again = [place for place, one in enumerate(chosen) if one is None]
        second = self._written([asked[place] for place in again], {}) if again else []
        for place, reply in zip(again, second, strict=True):
            chosen[place] = _read(reply, options)
        lost = [reply for place, reply in zip(again, second, strict=True) if chosen[place] is None]
        self._asked.replies += len(first) + len(second)
        self._asked.unparseable += len(again) + len(lost)
        if lost and isinstance(lost[0], Failure) and lost[0].kind == ErrorKind.INPUT:
            raise BadInput(lost[0].message)
        if lost:
            raise UnreadableReply(f"its reply names none of {', '.join(options)}: {_shown(lost[0])}")
        return [one for one in chosen if one is not None]

    def _written(self, prompts: Sequence[str], options: dict[str, Any]) -> list[str | Failure]:
        """What the model writes to each prompt. Raises `Unreachable` where it is away."""
        if not isinstance(self._model, Backend):
            return []
        files = self._exhibits.files if self._exhibits is not None else ()
        options = {"max_new_tokens": REPLY_TOKENS, "temperature": 0, **options}
        inputs = [Input(text=prompt, files=files, options=options) for prompt in prompts]
        size = self._model.model.max_batch
        outputs = [
            one for start in range(0, len(inputs), size) for one in self._model.run(inputs[start : start + size])
        ]
        for one in outputs:
            if isinstance(one, Failure) and one.code == "TryLater":
                raise Unreachable(one.message)
        return [one if isinstance(one, Failure) else one.text for one in outputs]


def _schema(options: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"choice": {"type": "string", "enum": list(options)}},
        "required": ["choice"],
        "additionalProperties": False,
    }


def _read(reply: str | Failure, options: Sequence[str]) -> str | None:
    """The option that a reply names: as JSON, alone or with words around it, or as nothing but the option."""
    if isinstance(reply, Failure):
        return None
    bare = unfenced(reply).strip()
    start, end = bare.find("{"), bare.rfind("}")
    try:
        said = json.loads(bare[start : end + 1] if 0 <= start < end else bare)
    except (ValueError, RecursionError):
        said = bare
    if isinstance(said, dict):
        said = said.get("choice")
    named = str(said).strip().strip("\"'().:*").strip()
    return named if named in options else None


def _shown(reply: str | Failure) -> str:
    return reply.message if isinstance(reply, Failure) else repr(" ".join(reply.split())[:80])


def _logprob(named: bool, options: int) -> float:  # noqa: FBT001 - a word of a sentence
    return math.log(SURE) if named else math.log((1 - SURE) / max(1, options - 1))


def _with_exhibits(prompt: str, items: Sequence[Exhibit], *, shown: bool = True) -> str:
    """A judge's prompt after what there is of the files. What models said of them is quoted as data."""
    told = [
        {
            "name": NAMES.get(item.kind, "file"),
            "shown": shown and item.file is not None,
            "said": [{"what": str(said.what), "text": _quoted(said.text)} for said in item.said],
        }
        for item in items
    ]
    return f"{render(EXHIBITS, files=told)}\n{prompt}"


def _quoted(text: str) -> str:
    """What a model said, without what is aimed at a judge, unable to leave its quotes."""
    said = examine(text).others.strip()
    return TAG.sub("&lt;", said[:LONGEST_SAID]) + ("\n[cut here]" if len(said) > LONGEST_SAID else "")

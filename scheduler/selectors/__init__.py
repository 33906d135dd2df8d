"""Evaluation approaches: ways to rank the models for a subtask. One file each, registered by name in `SELECTORS`.

| name | ranks by |
|---|---|
| `priority` | the registry's own order |
| `downloads`, `likes`, `trending` | what a hub counts: `metadata` of the registry, `bakeoff models import / refresh` |
| `benchmark`, `benchmark:NAME` | a published score of the metadata |
| `llm` | what a language model chose from the descriptions, in the planner's process |
| `track_record` | Bradley-Terry strength from this system's verdicts and preferences, less some of its uncertainty |
| `nearest` | how good each model was at past inputs like this one |
| `explore` | a draw from what its strength may be (Thompson sampling): new models get their chance |

`choose` asks several and de-duplicates; `enough` says how many of the chosen the input needs.
"""

from __future__ import annotations

from scheduler.selectors.adaptive import enough
from scheduler.selectors.base import Chosen, Selector, Situation
from scheduler.selectors.choosing import SELECTORS, checked_selectors, choose
from scheduler.selectors.history import NOTHING_KNOWN, Histories, History, learns

__all__ = [
    "NOTHING_KNOWN",
    "SELECTORS",
    "Chosen",
    "Histories",
    "History",
    "Selector",
    "Situation",
    "checked_selectors",
    "choose",
    "enough",
    "learns",
]

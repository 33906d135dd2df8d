"""What a language model said to a judge, kept on disk: a second run of a bench costs no model call.

A reply's key is the hash of the weights, what was asked (the prompt holds its version, the input and the order) and the
options. The model is loaded at the first question that was never asked.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from worker.backends import LanguageModel

FILE = "judge-replies.sqlite"


class Replies:
    """The file of replies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(folder / FILE, timeout=30, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = OFF")  # a lost reply is asked for again
        self._file.execute("CREATE TABLE IF NOT EXISTS reply (key BLOB PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: bytes) -> Any:
        """What was said, or None."""
        with closing(self._file.execute("SELECT said FROM reply WHERE key = ?", (key,))) as found:
            row = found.fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: bytes, said: Any) -> None:
        """Keep what was said."""
        self._file.execute("INSERT OR REPLACE INTO reply VALUES (?, ?)", (key, json.dumps(said)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Remembering:
    """A language model whose replies are kept.

    `calls` counts what judges asked, one per prompt and per continuation; `asked` those that the model was needed for.
    """

    def __init__(self, identity: str, load: Callable[[], LanguageModel], replies: Replies) -> None:
        self.identity = identity
        self._load, self._replies = load, replies
        self._model: LanguageModel | None = None
        self.calls = self.asked = 0

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`."""
        keys = [self._key("options", prompt, options) for prompt in prompts]
        known = [self._replies.get(key) for key in keys]
        missing = [place for place, said in enumerate(known) if said is None]
        if missing:
            said = self._ready().option_logprobs([prompts[place] for place in missing], options)
            for place, row in zip(missing, said, strict=True):
                known[place] = row
                self._replies.put(keys[place], row)
        self.calls, self.asked = self.calls + len(prompts), self.asked + len(missing)
        return known

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`."""
        keys = [self._key("continuation", prompt, [text]) for text in continuations]
        known = [self._replies.get(key) for key in keys]
        missing = [place for place, said in enumerate(known) if said is None]
        if missing:
            said = self._ready().continuation_logprobs(prompt, [continuations[place] for place in missing])
            for place, value in zip(missing, said, strict=True):
                known[place] = value
                self._replies.put(keys[place], value)
        self.calls, self.asked = self.calls + len(continuations), self.asked + len(missing)
        return known

    def _ready(self) -> LanguageModel:
        if self._model is None:
            self._model = self._load()
        return self._model

    def _key(self, kind: str, prompt: str, options: Sequence[str]) -> bytes:
        return hashlib.sha256(json.dumps([self.identity, kind, prompt, list(options)]).encode()).digest()

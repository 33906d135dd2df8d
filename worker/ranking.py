"""A language model ranks models by their descriptions: HuggingGPT's way to choose (arXiv 2303.17580, section 3.2)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from worker.templates import Prompts
from worker.writing import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import CapabilityEntry, ModelEntry
    from worker.backends import Backend

PROMPTS = Prompts(Path(__file__).parent / "planners" / "prompts", quotes=("request", "model"))
PROMPT = "rank-models-1"
MOST = 20  # models that are described to it; those with the most downloads, where there are more
LONGEST = 300  # characters of a description
TOKENS = 120
WHOLE = r"(?<![\w.-]){}(?![\w-])"  # a name, not a part of one


def rank_models(backend: Backend, request: str, capability: CapabilityEntry, models: Sequence[ModelEntry]) -> list[str]:
    """Names of these models, best first; those that the language model does not name are left out.

    Raises `worker.writing.WritingError` where it fails.
    """
    if len(models) < 2:
        return [model.name for model in models]
    shown = sorted(models, key=lambda model: -float(model.metadata.get("downloads") or 0))[:MOST]
    names = [model.name for model in shown]
    schema = {
        "type": "array",
        "items": {"type": "string", "enum": names},
        "minItems": 1,
        "maxItems": min(5, len(names)),
    }
    prompt = PROMPTS.render(
        PROMPT,
        request=request[:2000],
        instruction=capability.instruction,
        models=[
            {
                "name": model.name,
                "downloads": model.metadata.get("downloads"),
                "text": str(model.metadata.get("description") or "")[:LONGEST],
            }
            for model in shown
        ],
    )
    return named_in(write(backend, prompt, max_new_tokens=TOKENS, schema=schema).text, names)


def named_in(text: str, names: Sequence[str]) -> list[str]:
    """Which of these names a reply gives, in its order: a JSON list, or wherever they stand."""
    start, end = text.find("["), text.rfind("]")
    try:
        listed = json.loads(text[start : end + 1]) if 0 <= start < end else []
    except ValueError:
        listed = []
    found = [name for name in listed if name in names] if isinstance(listed, list) else []
    if not found:
        places = {name: match.start() for name in names if (match := re.search(WHOLE.format(re.escape(name)), text))}
        found = sorted(places, key=lambda name: places[name])
    return list(dict.fromkeys(found))

"""A system with scripted models for curation, and input for it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "rewarder", "embedder", "ifd", "given-original", "given-rewrite"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "number"

[capabilities."text-generation/review"]
input = "text"
instruction = "Answer the request."
judge = "number"

[capabilities."text-classification/question-reward"]
input = "text"
instruction = "Score the question."
judge = "number"
candidates = 1

[capabilities."text-classification/ifd"]
input = "text"
instruction = "Say how much the instruction helps."
judge = "number"
candidates = 1

[capabilities.feature-extraction]
input = "text"
output = "vector"
instruction = "Embed the text."
judge = "number"
candidates = 1

[judges.number]
method = "scripted"
params = { prefer = "number" }

[models.alpha]
capability = "text-generation"
backend = "scripted"
max_batch = 64
params = { answer = "Alpha has seen it and says it is so.", rules = [{ match = "^Rewrite (?s:.*)<answer>(?s:.)Alpha", answer = "It is so: Alpha has seen it and says it." }, { match = "^Rewrite", answer = "Beta would say {number} rather." }] }

[models.beta]
capability = "text-generation"
backend = "scripted"
max_batch = 64
params = { answer = "Beta would rather be asked again: {text}" }

[models.rewarder]
capability = "text-classification/question-reward"
backend = "scripted"
max_batch = 64
params = { answer = "{number}" }

[models.ifd]
capability = "text-classification/ifd"
backend = "scripted"
max_batch = 64
params = { answer = "{number}", rules = [{ match = "Is it b", answer = "1.25" }] }

[models.embedder]
capability = "feature-extraction"
backend = "scripted"
max_batch = 64
params = { answer = "a vector", vector = 8 }

[models.given-original]
capability = "text-generation/review"
backend = "given"
max_batch = 64

[models.given-rewrite]
capability = "text-generation/review"
backend = "given"
max_batch = 64
"""


def registry(*names: str) -> str:
    """The registry with these models only."""
    first, _, rest = REGISTRY.partition("models = [")
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{first}models = [{listed}]{rest.partition(']')[2]}"


def conversations(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Records in LLaVA's form, no two alike, of all three types."""
    random = Random(seed)  # noqa: S311 - to be repeated
    words = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdgklmnrst"]

    def said(least: int) -> str:
        return " ".join(random.choices(words, k=random.randint(least, least + 12)))

    out = []
    for number in range(count):
        turns = (1, 1, 3)[number % 3]
        start = ("What is ", "Describe in detail ", "Is it ")[number % 3]
        talk = []
        for turn in range(turns):
            mark = "<image>\n" if turn == 0 else ""
            talk += [
                {"from": "human", "value": f"{mark}{start}{said(4)}?"},
                {"from": "gpt", "value": f"{said(12).capitalize()}."},
            ]
        out.append({"id": f"{number:06d}", "image": f"{number:06d}.jpg", "conversations": talk})
    return out


def write_array(path: Path, records: list[dict[str, Any]]) -> Path:
    """A JSON array as LLaVA's files are."""
    path.write_text(json.dumps(records, indent=1), encoding="utf-8")
    return path


#: Every stage, over input with something for each of them.
EVERYTHING = """
stages = ["validate", "exact", "near", "leakage", "questions", "answers", "rewrite", "review", "ifd", "diversity"]
in_flight = 40
[input]
file = "FILE"
[leakage]
sets = ["SET"]
[questions]
keep = 0.6
[answers]
keep = 0.6
models = ["alpha", "beta"]
[rewrite]
models = ["alpha"]
[diversity]
keep = 0.7
"""


def with_faults(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records, and after them one of every kind that a rule drops."""
    near = json.loads(json.dumps(records[1]))
    near["conversations"][1]["value"] += " Indeed."
    leak = json.loads(json.dumps(records[0]))
    leak["conversations"][0]["value"] = "<image>\nWhy do the seven old sailors sing so loudly near the harbour wall?"
    noise = json.loads(json.dumps(records[0]))
    noise["conversations"][1]["value"] = "<script>alert(1)</script> I'm sorry, but I cannot see it."
    return [*records, records[3], near, leak, noise, {"id": "x", "conversations": []}]


LEAKED = {"question": "Why do the seven old sailors sing so loudly near the harbour wall?"}

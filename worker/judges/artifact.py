"""What `bakeoff judge fit` writes and a jury reads: weights per capability, and the card that says how far to trust
them. One JSON file, plain numbers, in a folder of the operator's choice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from db.errors import RegistryError
from worker.judges.fitting import Weights, fit, foretell
from worker.judges.ranking import softmax

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worker.judges.fitting import Example

FILE = "jury.json"
KEPT = 0.0003  # what a cascade may lose to the jury: chance of having the best answer, on rows held out of the fit
MOST_ASKED = 0.45  # of the questions: a cascade saves at least half, with a margin for questions to come
#: Where nothing was fitted: confidence of the cheap jurors below which the language model is asked.
PRIOR_THRESHOLD = 0.75


class Fitted(BaseModel):
    """One capability: weights without and with the features that a language model gives, and when to ask it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cheap: dict[str, float]
    full: dict[str, float] | None = None
    language_model: str | None = None  # whose features `full` knows
    threshold: float = PRIOR_THRESHOLD
    card: dict[str, Any] = {}

    def weights(self, language_model: str | None) -> Weights:
        """The weights for what can be read: those with a language model are for that very model."""
        known = self.full is not None and language_model == self.language_model
        return Weights(weights=self.full if known and self.full is not None else self.cheap)

    def knows(self, language_model: str | None) -> bool:
        """Whether that model's features were part of the fit."""
        return self.full is not None and language_model == self.language_model


class Artifact(BaseModel):
    """Everything that was fitted together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    capabilities: dict[str, Fitted]
    data: dict[str, Any] = {}  # what it was fitted on: source, split, date


def read_artifact(folder: Path, where: str) -> Artifact:
    """Read `jury.json` of a folder. Raises `RegistryError` that begins with `where`, the key that names the folder."""
    path = folder / FILE
    try:
        return Artifact.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise RegistryError(f"{where} = {str(folder)!r} has no {FILE}; `bakeoff judge fit` writes one.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RegistryError(f"{path}, {key}: {first['msg']}. Fit it again: `bakeoff judge fit`.") from None


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    """Write it into a folder, which is made where it is missing. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(json.dumps(artifact.model_dump(mode="json"), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def fit_capability(
    cheap: Sequence[Example], full: Sequence[Example] | None = None, language_model: str | None = None
) -> Fitted:
    """Fit one capability. `full` are the same examples with a language model's features beside the cheap ones.

    Raises `UsageError` where there are too few preferences.
    """
    groups = len({example.group for example in cheap})
    if full is None:
        alone = fit(cheap)
        return Fitted(cheap=dict(alone.weights.weights), card={"groups": groups, "cheap": alone.card})
    both = fit(full)
    known = {name for example in cheap for row in example.features for name in row}
    # Where the fit leaves the language model unheard there is nothing to ask it; else the cheap weights foretell what
    # the full jury would say, which is what a cascade has to know.
    unheard = set(both.weights.weights) <= known
    fitted = both if unheard else foretell(cheap, full, both)
    threshold, saving = cascade_threshold(cheap, fitted.held_out, both.held_out)
    return Fitted(
        cheap=dict(fitted.weights.weights),
        full=dict(both.weights.weights),
        language_model=language_model,
        threshold=threshold,
        card={"groups": groups, "cheap": fitted.card, "full": both.card, "cascade": saving},
    )


def cascade_threshold(
    examples: Sequence[Example], cheap: Sequence[Sequence[float]], full: Sequence[Sequence[float]]
) -> tuple[float, dict[str, float]]:
    """The lowest threshold that keeps what the full jury scores, on held-out strengths, within `MOST_ASKED`.

    Below the threshold of confidence the language model is asked. What not asking costs is taken from the full jury's
    own chances: the labels say the same with far more noise. Returns it with what it saves and loses, also by labels.
    """
    rows = []
    for example, without, using in zip(examples, cheap, full, strict=True):
        chances, mine, theirs = softmax(using), _best(without), _best(using)
        gain = example.scores[theirs] - example.scores[mine]
        rows.append((max(softmax(without)), chances[theirs] - chances[mine], gain))
    rows.sort(key=lambda row: row[0])
    count = max(1, len(rows))
    threshold, asked, lost = 0.0, 0, sum(cost for _, cost, _ in rows)  # nobody asked
    for number, (sure, cost, _) in enumerate(rows, 1):
        if lost <= KEPT * count or number > MOST_ASKED * count:
            break
        lost -= cost
        threshold, asked = sure + 1e-9, number
    return threshold, {
        "asked": asked / count,
        "expected_loss": lost / count,
        "score_lost": sum(gain for _, _, gain in rows[asked:]) / count,
    }


def _best(strengths: Sequence[float]) -> int:
    return max(range(len(strengths)), key=lambda place: strengths[place])

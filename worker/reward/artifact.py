"""A reward model as a folder: weights (safetensors), how it reads, its tokenizer, and its card. Nothing is pickled.

`reward.json` is written last: a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.errors import RegistryError, WeightsError
from worker.reward.card import as_markdown
from worker.reward.checkpoint import write_json
from worker.reward.surface import form_of
from worker.reward.text import FORM

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from worker.reward.ensemble import Ensemble

SETTINGS, WEIGHTS, CARD, CARD_TEXT = "reward.json", "model.safetensors", "card.json", "card.md"
NAMES = "counted.json"  # what is counted: words and pairs of words, features of form; each by place
AGAIN = "Train it again: `bakeoff reward train`."
COUNTED = ("rarity", "gram_weights", "means", "layer_weights", "form_means", "form_scales", "form_weights")


class Settings(BaseModel):
    """`reward.json`: how a text becomes a score. `form` is that of `worker.reward.text`, `base` what it began as."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    form: int = FORM
    pooling: Literal["mean", "last"]
    max_tokens: int = Field(ge=8)
    scale: float = Field(1.0, gt=0)
    counted_scale: float = Field(gt=0)
    members: int = Field(ge=0)
    base: str = ""


def write_artifact(folder: Path, model: Ensemble, base: str, card: dict[str, Any]) -> Path:
    """Write everything. Returns the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.base.network.config.save_pretrained(folder)
    model.base.tokenizer.save_pretrained(folder)
    save_file(_tensors(model), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes it for its owner alone
    write_json(folder / NAMES, {"grams": model.counted.grams, "form": list(model.counted.form)})
    write_json(folder / CARD, card)
    (folder / CARD_TEXT).write_text(as_markdown(card), encoding="utf-8")
    settings = Settings(
        pooling=model.base.reading.pooling,
        max_tokens=model.base.reading.max_tokens,
        scale=model.scale,
        counted_scale=model.counted_scale,
        members=len(model.members),
        base=base,
    )
    write_json(folder / SETTINGS, settings.model_dump())
    return folder


def _tensors(model: Ensemble) -> dict[str, torch.Tensor]:
    """All numbers: the base's, those of the members by place that are other than the base's, the counted half's."""
    found: dict[str, torch.Tensor] = {}
    parts = [("base.network", model.base.network)]
    parts += [(f"{place}.head", member.head) for place, member in enumerate(model.members)]
    parts += [(f"{place}.network", member.network) for place, member in enumerate(model.members)]
    for name, part in parts:
        for key, value in part.state_dict().items():
            plain = value.detach().cpu().float().contiguous()
            known = found.get(f"base.{name.partition('.')[2]}.{key}")
            if known is None or not known.equal(plain):
                found[f"{name}.{key}"] = plain
    return found | {f"counted.{name}": getattr(model.counted, name).contiguous() for name in COUNTED}


def is_artifact(folder: Path) -> bool:
    """Whether a folder holds a reward model that was written to its end."""
    return (folder / SETTINGS).is_file()


def read_settings(folder: Path) -> Settings:
    """How a reward model reads. Raises `WeightsError` for a folder that is none, or of another version."""
    path = folder / SETTINGS
    try:
        settings = Settings.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(
            f"{folder} is no reward model: it has no {SETTINGS}; `bakeoff reward train` writes one."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}, {key}: {first['msg']}. {AGAIN}") from None
    if settings.form != FORM:
        raise WeightsError(f"{path}, form = {settings.form}: texts are rendered in form {FORM} now. {AGAIN}")
    return settings


def read_artifact(folder: Path, *, device: str = "cpu") -> Ensemble:
    """The reward model of a folder, ready to score. Raises `WeightsError` where there is none, or torch is missing."""
    settings = read_settings(folder)
    try:
        import torch
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        from worker.reward.counted import Counted
        from worker.reward.ensemble import Ensemble
        from worker.reward.model import Reading, Scorer
    except ModuleNotFoundError as error:
        raise WeightsError(f'A reward model needs {error.name}: `pip install "bakeoff[transformers]"`.') from error
    reading = Reading(pooling=settings.pooling, max_tokens=settings.max_tokens)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tensors = load_file(folder / WEIGHTS)

        def scorer(place: str) -> Scorer:
            made = Scorer(AutoModel.from_config(config, dtype=torch.float32), tokenizer, reading)
            made.network.load_state_dict(_part(tensors, "base", "network") | _part(tensors, place, "network"))
            if head := _part(tensors, place, "head"):
                made.head.load_state_dict(head)
            made.network.to(device).eval()
            made.head.to(device)
            return made

        names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        if unknown := sorted(set(names["form"]) - set(form_of(""))):
            raise WeightsError(f"{folder / NAMES}, form = {unknown[0]!r}: no such feature is counted now. {AGAIN}")
        numbers = {name: tensors[f"counted.{name}"] for name in COUNTED}
        model = Ensemble(
            base=scorer("base"),
            counted=Counted(grams=names["grams"], form=tuple(names["form"]), **numbers),
            counted_scale=settings.counted_scale,
            members=tuple(scorer(str(place)) for place in range(settings.members)),
            scale=settings.scale,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"The reward model in {folder} cannot be read ({reason}). {AGAIN}") from None
    return model


def _part(tensors: dict[str, torch.Tensor], place: str, name: str) -> dict[str, torch.Tensor]:
    own = f"{place}.{name}."
    return {key.removeprefix(own): value for key, value in tensors.items() if key.startswith(own)}


def artifact_of(folder: Path, where: str) -> Path:
    """The folder, checked as far as it can be without torch. Raises `RegistryError` that begins with its key."""
    try:
        read_settings(folder)
    except WeightsError as error:
        raise RegistryError(f"{where} = {str(folder)!r}: {error}") from None
    return folder


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

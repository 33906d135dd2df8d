"""A reward model as a folder: weights (safetensors), how it reads, its tokenizer, and its card. Nothing is pickled.

`reward.json` is written last: a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.errors import RegistryError, WeightsError
from worker.reward.card import as_markdown
from worker.reward.checkpoint import write_json
from worker.reward.text import FORM

if TYPE_CHECKING:
    from pathlib import Path

    from worker.reward.model import Scorer

SETTINGS, WEIGHTS, CARD, CARD_TEXT = "reward.json", "model.safetensors", "card.json", "card.md"


class Settings(BaseModel):
    """`reward.json`: how a text becomes a score. `form` is that of `worker.reward.text`, `base` what it began as."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    form: int = FORM
    pooling: Literal["mean", "last"]
    max_tokens: int = Field(ge=8)
    scale: float = Field(1.0, gt=0)
    base: str = ""


def write_artifact(folder: Path, scorer: Scorer, base: str, card: dict[str, Any]) -> Path:
    """Write everything. Returns the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    scorer.network.config.save_pretrained(folder)
    scorer.tokenizer.save_pretrained(folder)
    tensors = {f"network.{name}": value for name, value in scorer.network.state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in scorer.head.state_dict().items()}
    save_file({name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes it for its owner alone
    write_json(folder / CARD, card)
    (folder / CARD_TEXT).write_text(as_markdown(card), encoding="utf-8")
    settings = Settings(
        pooling=scorer.reading.pooling, max_tokens=scorer.reading.max_tokens, scale=scorer.scale, base=base
    )
    write_json(folder / SETTINGS, settings.model_dump())
    return folder


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
        raise WeightsError(f"{path}, {key}: {first['msg']}. Train it again: `bakeoff reward train`.") from None
    if settings.form != FORM:
        raise WeightsError(
            f"{path}, form = {settings.form}: texts are rendered in form {FORM} now. Train it again: "
            "`bakeoff reward train`."
        )
    return settings


def read_artifact(folder: Path, *, device: str = "cpu") -> Scorer:
    """The reward model of a folder, ready to score. Raises `WeightsError` where there is none, or torch is missing."""
    settings = read_settings(folder)
    try:
        import torch
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        from worker.reward.model import Reading, Scorer
    except ModuleNotFoundError as error:
        raise WeightsError(f'A reward model needs {error.name}: `pip install "bakeoff[transformers]"`.') from error
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_config(config, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    reading = Reading(pooling=settings.pooling, max_tokens=settings.max_tokens)
    scorer = Scorer(network, tokenizer, reading, settings.scale)
    try:
        tensors = load_file(folder / WEIGHTS)
        for name, part in (("network", network), ("head", scorer.head)):
            own = f"{name}."
            part.load_state_dict({key.removeprefix(own): v for key, v in tensors.items() if key.startswith(own)})
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{folder / WEIGHTS} cannot be read ({reason}). Train it again.") from None
    network.to(device).eval()
    scorer.head.to(device)
    return scorer


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

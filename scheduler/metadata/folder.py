"""A model's own folder, as a hub's clients lay it down: its card (README.md) and its config.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from db.errors import BakeoffError, InvalidRequest
from db.metadata import Catalogue, ModelMetadata
from scheduler.metadata.listed import licence, metrics_of_index, scores_of, shortened

#: Endings of a config's architecture → pipeline tag, for models whose card says none.
TASKS = {
    "ForCausalLM": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCTC": "automatic-speech-recognition",
    "WhisperForConditionalGeneration": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "VisionEncoderDecoderModel": "image-to-text",
}


def read_folder(folder: Path, named: str | None, now: str) -> Catalogue:
    """The model of a folder. `named` is its hub id, or its name in the registry.

    Raises `InvalidRequest` where the folder holds neither file, where one cannot be read, or nothing says the id.
    """
    card, config = folder / "README.md", folder / "config.json"
    if not card.is_file() and not config.is_file():
        raise InvalidRequest(f"{folder} holds neither README.md nor config.json: it is no model's folder.")
    settings = _config(config) if config.is_file() else {}
    header, text = _card(card) if card.is_file() else ({}, "")
    key = named or _id_of(folder, settings)
    metadata = ModelMetadata(
        scores=scores_of(metrics_of_index(header.get("model-index") or ())),
        description=shortened(first_paragraph(text)),
        capability=header.get("pipeline_tag") or _task(settings),
        license=licence(header.get("license")),
        origin=folder.name,
        updated=now,
    )
    return {key: metadata}


def _config(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidRequest(f"{path} is not JSON ({error}).") from None
    if not isinstance(read, dict):
        raise InvalidRequest(f"{path} is not a JSON object.")
    return read


def _card(path: Path) -> tuple[dict[str, Any], str]:
    try:
        import yaml  # noqa: PLC0415 - only who imports a model's folder needs it
    except ImportError:
        raise BakeoffError("Reading a model card needs PyYAML: pip install 'bakeoff[transformers]'.") from None
    content = path.read_text(encoding="utf-8", errors="replace")
    parts = re.match(r"---\s*\n(.*?)\n---\s*\n?(.*)", content, re.DOTALL)
    if parts is None:
        return {}, content
    try:
        header = yaml.safe_load(parts.group(1))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidRequest(f"{path}: its header is not YAML ({reason}).") from None
    return (header if isinstance(header, dict) else {}), parts.group(2)


def first_paragraph(text: str) -> str:
    """The first paragraph of a card that is prose: no heading, table, list, picture, quotation or HTML."""
    plain = re.sub(r"```.*?```|<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.DOTALL)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    for block in re.split(r"\n\s*\n", plain):
        prose = " ".join(line for line in block.strip().splitlines() if not line.startswith("#")).strip()
        if prose and prose[0] not in "<|!>-*=[" and len(prose.split()) > 3:
            return prose
    return ""


def _id_of(folder: Path, config: dict[str, Any]) -> str:
    cached = re.search(r"models--([^/]+?)--([^/]+)", str(folder.resolve()))
    if cached:
        return f"{cached.group(1)}/{cached.group(2)}"
    named = config.get("_name_or_path")
    if isinstance(named, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", named):
        return named
    raise InvalidRequest(f"Nothing in {folder} says the model's id; say it with --id ORG/NAME, or its registry name.")


def _task(config: dict[str, Any]) -> str | None:
    architectures = config.get("architectures")
    for architecture in architectures if isinstance(architectures, list) else ():
        for ending in sorted(TASKS, key=len, reverse=True):
            if str(architecture).endswith(ending):
                return TASKS[ending]
    return None

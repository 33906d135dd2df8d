"""Chat messages as one request: what a model reads, and what a judge sees as quoted data."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.errors import InvalidRequest
from scheduler.submit import Upload

WHO = {"user": "User", "assistant": "Assistant"}
INSTRUCTS = {"system", "developer"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class TextPart(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """Where a picture is: in the URL itself."""

    url: str = Field(description="A data URL with base64; others are refused: nothing is fetched.")


class ImagePart(_Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Sound(_Strict):
    """A recording in base64."""

    data: str
    format: str = ""


class AudioPart(_Strict):
    """A recording."""

    type: Literal["input_audio"]
    input_audio: Sound


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class Message(_Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=256)]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation as a task has it."""

    request: str
    files: tuple[Upload, ...]


def render(messages: Sequence[Message]) -> Rendered:
    """The last message, which is the user's, as the request; what came before it as its context.

    Raises `InvalidRequest` where the last message is nobody's question, or a file is not in the message itself.
    """
    *before, last = messages
    if last.role != "user":
        raise InvalidRequest(
            f"messages: the last one is the {last.role}'s; the last one is what is asked, by the user."
        )
    files: list[Upload] = []
    texts = [_read(message, files) for message in messages]
    instructions = [text for message, text in zip(before, texts, strict=False) if message.role in INSTRUCTS and text]
    turns = [
        f"{WHO[message.role]}: {text}" for message, text in zip(before, texts, strict=False) if message.role in WHO
    ]
    parts = list(instructions)
    if turns:
        parts += ["The conversation so far:", "\n".join(turns), "Answer this message:"]
    return Rendered(request="\n\n".join([*parts, texts[-1]]).strip(), files=tuple(files))


def _read(message: Message, files: list[Upload]) -> str:
    """A message's words; its files are added to `files`."""
    if isinstance(message.content, str):
        return message.content.strip()
    texts: list[str] = []
    for part in message.content:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ImagePart):
            files.append(_picture(part.image_url.url, len(files)))
        else:
            name = f"file-{len(files) + 1}"
            files.append(Upload(name=name, data=_bytes(part.input_audio.data, "input_audio.data")))
    return "\n".join(texts).strip()


def _picture(url: str, number: int) -> Upload:
    kind, _, data = url.partition(",")
    if not kind.lower().startswith("data:") or not kind.lower().endswith(";base64"):
        raise InvalidRequest(
            "messages: image_url.url must be a data URL, data:image/png;base64,...; nothing is fetched from elsewhere."
        )
    return Upload(name=f"file-{number + 1}", data=_bytes(data, "image_url.url"))


def _bytes(data: str, place: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"messages: {place} is not base64.") from None


def expectation(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    """The hard check that a `response_format` stands for. Raises `InvalidRequest` for one that is unknown."""
    kind = (response_format or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"checks": [{"check": "json"}]}
    schema = ((response_format or {}).get("json_schema") or {}).get("schema")
    if kind == "json_schema" and isinstance(schema, dict):
        return {"checks": [{"check": "json", "schema": schema}]}
    raise InvalidRequest(f"response_format = {kind!r:.60} is not text, json_object, or json_schema with its schema.")

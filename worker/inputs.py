"""From the references of a subtask to what a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.blobs import blob_store
from db.errors import NotFound, Unreachable
from db.logs import get_logger
from db.states import ErrorKind
from worker.backends import Failure, File, Input, failure_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.blobs import BlobStore
    from db.candidates import Work
    from worker.process import ModelProcess

log = get_logger(__name__)


def words_of(inputs: Sequence[Mapping[str, Any]], request: str, results: Mapping[str, str] | None) -> str:
    """What a subtask's inputs say in words, in their order: the request, the plan's own text, other steps' results."""
    said = []
    for reference in inputs:
        if "request" in reference:
            said.append(request)
        elif "text" in reference:
            said.append(reference["text"])
        elif "output" in reference:
            said.append((results or {}).get(reference["output"], ""))
    return "\n\n".join(text for text in said if text)


def resolved(process: ModelProcess, work: Work, types: Mapping[str, str]) -> Input | Failure:
    """Read what a candidate's inputs refer to; `types` holds the media type of each file by its digest."""
    store_of_blobs = blob_store(process.settings.blobs)
    try:
        text = words_of(work.inputs, work.request, work.results)
        files = tuple(
            _file(store_of_blobs, work.attachments[reference["attachment"]], types)
            for reference in work.inputs
            if "attachment" in reference
        )
    except NotFound as error:
        return Failure(kind=ErrorKind.INPUT, code="attachment_missing", message=str(error))
    except Unreachable as error:
        return Failure(kind=ErrorKind.MODEL, code="blobs_unreachable", message=str(error))
    except Exception as error:
        log.exception("Inputs could not be resolved", action="inputs_failed", candidate=str(work.id))
        return failure_from(error)
    return Input(
        text=text,
        instruction=process.registry.capabilities[work.capability].instruction,
        files=files,
        options=work.options.get("params", {}),
    )


def _file(blobs: BlobStore, attachment: dict[str, Any], types: Mapping[str, str]) -> File:
    digest = attachment["sha256"]
    return File(
        name=attachment.get("name", ""),
        media_type=types.get(digest, "application/octet-stream"),
        data=blobs.get(digest),
    )

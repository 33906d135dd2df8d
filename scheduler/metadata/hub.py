"""Downloads, likes and trending from a hub, through its own client library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from db.errors import BakeoffError, Unreachable
from db.metadata import Catalogue, ModelMetadata

SECONDS = 20.0  # for one model


@dataclass(kw_only=True)
class Fetched:
    """What the hub said, and of which models it said nothing, with the reason."""

    models: Catalogue = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def fetch_metadata(ids: Iterable[str], endpoint: str | None, now: str, seconds: float = SECONDS) -> Fetched:
    """Ask the hub at `endpoint` (default: HF_ENDPOINT, else the public one) about each of these models.

    A model that it does not know, or does not show us, is kept as a failure and the others go on. Raises `Unreachable`
    where the hub does not answer at all, or the library is told to stay offline.
    """
    try:
        from huggingface_hub import HfApi, constants  # noqa: PLC0415 - heavy, and only this command needs it
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled  # noqa: PLC0415
    except ImportError:
        raise BakeoffError("Asking a hub needs huggingface-hub: pip install 'bakeoff[transformers]'.") from None
    where = (endpoint or constants.ENDPOINT).rstrip("/")
    hub = HfApi(endpoint=where)
    fetched = Fetched()
    for model in ids:
        try:
            said = hub.model_info(
                model, timeout=seconds, expand=["downloads", "likes", "trendingScore", "pipeline_tag"]
            )
        except OfflineModeIsEnabled:
            raise Unreachable("HF_HUB_OFFLINE is set, so no hub is asked; unset it, or import a file.") from None
        except HFValidationError as error:
            fetched.failed[model] = _first_line(error)
            continue
        except HfHubHTTPError as error:
            fetched.failed[model] = _reason(error)
            continue
        except Exception as error:  # noqa: BLE001 - the library's transport raises what its version likes
            raise Unreachable(
                f"The hub at {where} does not answer ({_first_line(error)}). Set HF_ENDPOINT or --endpoint to one that "
                "can be reached from here, or import a file: `bakeoff models import`."
            ) from None
        fetched.models[model] = ModelMetadata(
            downloads=said.downloads,
            likes=said.likes,
            trending=said.trending_score,
            capability=said.pipeline_tag,
            origin=where,
            updated=now,
        )
    return fetched


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = {401: "the hub knows no such model, or shows it to others only", 403: "the hub shows it to others only",
             404: "the hub knows no such model", 429: "the hub asks to slow down; try again later"}  # fmt: skip
    return words.get(status or 0, f"the hub answered {status or 'nothing sensible'}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

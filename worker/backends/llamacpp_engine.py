"""llama.cpp in this process: the server inside `xllamacpp`, spoken to over a socket that nobody else can reach.

The package binds llama.cpp's own server and not its parts: what tokenizes, applies chat templates and reads
probabilities are routes of it. It listens on a Unix socket in a folder of this user alone, behind a key made at start;
no port is opened.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from db.errors import WeightsError

if TYPE_CHECKING:
    from db.registry import ModelEntry


class EngineError(RuntimeError):
    """llama.cpp refused or failed; the text is its own."""


class Engine:
    """A loaded GGUF file. `context` is what one conversation may hold, in tokens."""

    def __init__(self, model: ModelEntry, weights: Path, *, context: int, threads: int, gpu: bool) -> None:
        try:
            import xllamacpp
        except ImportError as error:
            raise WeightsError(
                f"Model {model.name} needs the package xllamacpp ({error}): pip install 'bakeoff[llamacpp]'."
            ) from None
        self._folder = Path(tempfile.mkdtemp(prefix="bakeoff-llama-"))
        # llama.cpp takes an address that ends in .sock for a Unix socket.
        socket, key = str(self._folder / "llama.sock"), secrets.token_urlsafe(32)
        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(weights)
        wanted.n_ctx = context
        wanted.n_parallel = 1
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
        wanted.hostnames, wanted.api_keys = [socket], [key]
        wanted.n_threads_http = 2
        wanted.ui = wanted.fit_params = wanted.endpoint_slots = False
        wanted.offline = True
        wanted.cache_ram_mib = 0  # prompts of the past, 8 GB of them by default; the last one is reused without
        wanted.verbosity = -1
        if not gpu:
            wanted.n_gpu_layers = 0
        try:
            self._server: Any = xllamacpp.Server(wanted)
        except RuntimeError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise WeightsError(
                f"llama.cpp cannot load {weights.name} of {model.name}: not a GGUF file that this version knows, or "
                f"too little memory for it and {context} tokens of context."
            ) from None
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket),
            base_url="http://llama.cpp",
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            timeout=model.timeout,
        )

    def close(self) -> None:
        """Give back the memory and remove the socket."""
        self._client.close()
        self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def tokens(self, text: str, *, special: bool = False, start: bool = False) -> list[int]:
        """Token ids; only with `special` does `<|im_end|>` mean the end of a turn. `start`: what opens every text."""
        body = {"content": text, "parse_special": special, "add_special": start}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def pieces(self, text: str) -> list[tuple[int, bytes]]:
        """Token ids of a text without markup, each with its bytes."""
        read = self._post("/tokenize", {"content": text, "parse_special": False, "with_pieces": True})["tokens"]
        return [
            (int(one["id"]), one["piece"].encode() if isinstance(one["piece"], str) else bytes(one["piece"]))
            for one in read
        ]

    def conversation(self, turns: list[dict[str, str]]) -> str:
        """The turns in the model's chat format, up to where a reply begins."""
        return str(self._post("/apply-template", {"messages": turns})["prompt"])

    def complete(self, ids: list[int], most: int, **how: Any) -> dict[str, Any]:
        """Write at most so many tokens after a prompt; greedy unless told otherwise."""
        body = {"prompt": ids, "n_predict": most, "temperature": 0, "cache_prompt": True, **how}
        return self._post("/completion", body)

    def _post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(route, content=json.dumps(body))
        read: dict[str, Any] = response.json()
        if response.status_code != 200 or "error" in read:
            problem = read.get("error", {})
            raise EngineError(str(problem.get("message", problem) if isinstance(problem, dict) else problem))
        return read

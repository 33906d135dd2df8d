"""Models behind any OpenAI-compatible server: vLLM, SGLang, TGI, llama.cpp, Ollama, a hosted one.

The capability decides the route: chat completions (text, pictures as data URLs), transcriptions, embeddings.
"""

from __future__ import annotations

import base64
import json
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from db.blobs import kind_of
from db.errors import RegistryError, Unreachable
from db.sources import ServerSource
from worker.backends import Backend, BadInput, Failure, Input, NoProbabilities, Output
from worker.backends.constrained import wanted_schema
from worker.backends.openai_server import Deadline, Server, ServerError, TryLater
from worker.media import as_wav, decode_audio, decode_image, files_of, only_file, request_text
from worker.params import Params, checked_params
from worker.weights import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.registry import ModelEntry
    from worker.backends import File, Place

WEB_PICTURES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})  # sent as they are
#: Sound that is sent as it is, by the name that the API has for it.
WEB_SOUND = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/vnd.wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
SHARE_OF_TIMEOUT = 0.9  # a batch gives up before the worker gives it up: its finished answers are kept
TOP_LOGPROBS = 20  # as many as OpenAI and vLLM allow


class OpenAIParams(Params):
    """`params` of a model behind a server."""

    concurrency: int = Field(8, ge=1, le=256)  # requests at the same time
    max_new_tokens: int = Field(512, ge=1)  # where the caller names none
    max_new_tokens_limit: int = Field(4096, ge=1)  # a caller's larger wish is cut to it
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # the second: OpenAI's newer models
    system: str = ""  # the system turn
    extra_body: dict[str, Any] = Field(
        default_factory=dict
    )  # what this server takes besides, as in chat_template_kwargs
    language: str | None = None  # of speech; empty: the caller's option, else the server hears it
    likelihood: Literal["prompt_logprobs", "echo"] = "prompt_logprobs"  # how a judge reads probabilities of a text
    echo_before: str = "{prompt}\n\n"  # with `echo`: the chat format up to the reply, `{prompt}` filled in
    echo_after: str = ""  # with `echo`: what ends a reply


class OpenAI(Backend):
    """A client of a server that runs the model. A request that fails fails alone."""

    constrains = True  # where the server does; a reply that is no JSON is refused

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        if not isinstance(model.source, ServerSource):
            raise RegistryError(
                f"models.{model.name}.source = {str(model.source)!r}: the openai backend needs "
                '{ server = "http://...", model = "..." }.'
            )
        self.params = checked_params(model, OpenAIParams)
        self.identity = identity(model, None)
        self._name = model.source.model
        self._source = model.source
        self._server: Server | None = None
        self._task = model.capability.partition("/")[0]

    @property
    def server(self) -> Server:
        """The connected server. Raises `RuntimeError` before `load` and after `close`."""
        if self._server is None:
            raise RuntimeError(f"{self.model.name} is not connected")
        return self._server

    def load(self) -> None:
        """Connect. Raises `SettingsError` for a missing key, `Unreachable` where the server does not answer."""
        self._server = Server(self.model.name, self._source, self.params.concurrency)
        self._server.alive(min(30.0, self.model.timeout))

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Ask for every input, `concurrency` at the same time, all within nine tenths of the model's timeout."""
        deadline = Deadline.within(self.model.timeout * SHARE_OF_TIMEOUT)
        if self._task == "feature-extraction":
            return self._embed_all(inputs, deadline)
        ask: Callable[[Input, Deadline], Output]
        ask = self._transcribe if self._task == "automatic-speech-recognition" else self._chat
        return self.server.each(inputs, lambda item: ask(item, deadline))

    def close(self) -> None:
        """Close the connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    # --- chat ---------------------------------------------------------------------------------------------------

    def _chat(self, item: Input, deadline: Deadline) -> Output:
        body = self._chat_body(self._content(item), self._wanted_tokens(item), temperature=_temperature(item))
        if "seed" in item.options:
            body["seed"] = item.options["seed"]
        schema = wanted_schema(item)
        if schema is not None:
            form = {"name": "reply", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        read = self.server.post("chat/completions", deadline, json=body)
        choice = read["choices"][0]
        text = choice["message"].get("content")
        if text is None:
            reason = choice["message"].get("refusal") or f"finish_reason {choice.get('finish_reason')}"
            raise ServerError(f"{self._name} wrote no text ({reason})")
        if schema is not None and choice.get("finish_reason") != "length" and not _is_json(text):
            raise ServerError(f"{self._name} wrote no JSON: its server does not know response_format json_schema")
        return Output(text=text.strip(), detail={"finish_reason": choice.get("finish_reason")}, usage=_usage(read))

    def _content(self, item: Input) -> Any:
        if item.files and all(kind_of(file.media_type) in self.model.reads for file in item.files):
            return [*_parts(item.files), {"type": "text", "text": _words(item)}]
        pictures = self._task in {"image-text-to-text", "image-to-text", "image-classification"}
        if pictures and (item.files or not self.model.reads):  # without files it is a judge's question
            return _picture_content(item)
        return request_text(item)

    def _chat_body(self, content: Any, most: int, *, temperature: float = 0.0) -> dict[str, Any]:
        system = [{"role": "system", "content": self.params.system}] if self.params.system else []
        return {
            "model": self._name,
            "messages": [*system, {"role": "user", "content": content}],
            "temperature": temperature,
            self.params.max_tokens_name: most,
            **self.params.extra_body,
        }

    def _wanted_tokens(self, item: Input) -> int:
        wanted = item.options.get("max_new_tokens", self.params.max_new_tokens)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise BadInput(f"Option max_new_tokens = {wanted!r} is not a whole number of at least 1.")
        return min(wanted, self.params.max_new_tokens_limit)

    # --- speech and embeddings ----------------------------------------------------------------------------------

    def _transcribe(self, item: Input, deadline: Deadline) -> Output:
        file = only_file(item, "audio")
        form = {"model": self._name, "response_format": "json", "temperature": "0"}
        language = item.options.get("language", self.params.language)
        if language is not None:
            form["language"] = str(language)
        upload = {"file": (file.name, file.data, file.media_type or "application/octet-stream")}
        read = self.server.post("audio/transcriptions", deadline, data=form, files=upload)
        return Output(text=read["text"].strip(), usage=_usage(read))

    def _embed_all(self, inputs: Sequence[Input], deadline: Deadline) -> list[Output | Failure]:
        """One request for all; where the server refuses it, one for each, so that the culprit fails alone."""
        (together,) = self.server.each([inputs], lambda items: self._embed(items, deadline))
        if not isinstance(together, Failure):
            return list(together)
        alone = self.server.each([[item] for item in inputs], lambda items: self._embed(items, deadline)[0])
        return list(alone)

    def _embed(self, inputs: Sequence[Input], deadline: Deadline) -> list[Output]:
        body = {"model": self._name, "input": [request_text(item) for item in inputs], **self.params.extra_body}
        read = self.server.post("embeddings", deadline, json=body)
        vectors = [row["embedding"] for row in sorted(read["data"], key=lambda row: row["index"])]
        if len(vectors) != len(inputs):
            raise ServerError(f"{self._name} gave {len(vectors)} vectors for {len(inputs)} texts")
        return [
            Output(text=f"a vector of {len(vector)} numbers", detail={"vector": _unit(vector), "truncated": False})
            for vector in vectors
        ]

    # --- probabilities ------------------------------------------------------------------------------------------

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`. An option beyond the 20 likeliest tokens counts as the last of them.

        Raises `ServerError` where the server fails, `NoProbabilities` where it gives none or refuses to.
        """
        return self.option_logprobs_about((), prompts, options)

    def option_logprobs_about(
        self, files: Sequence[File], prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float]]:
        """See `SeeingModel`. Pictures go as data URLs, recordings as WAV or MP3."""
        deadline = Deadline.within(self.model.timeout)
        parts = _parts(files)

        def ask(prompt: str) -> list[float]:
            content = [*parts, {"type": "text", "text": prompt}] if parts else prompt
            return self._options_of(content, options, deadline)

        return self._all(prompts, ask)

    def _options_of(self, content: Any, options: Sequence[str], deadline: Deadline) -> list[float]:
        body = self._chat_body(content, 1) | {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        try:
            choice = self.server.post("chat/completions", deadline, json=body)["choices"][0]
        except BadInput as error:
            if "logprob" in str(error):
                raise NoProbabilities(f"{self._name} refuses to give logprobs ({error})") from None
            raise
        content = (choice.get("logprobs") or {}).get("content")
        if not content or not content[0].get("top_logprobs"):
            raise NoProbabilities(f"{self._name} gives no logprobs of its reply")
        likeliest = content[0]["top_logprobs"]
        floor = min(token["logprob"] for token in likeliest)
        chances = [
            sum(math.exp(token["logprob"]) for token in likeliest if token["token"].strip() == option)
            for option in options
        ]
        logs = [math.log(chance) if chance else floor for chance in chances]
        total = math.log(sum(math.exp(log) for log in logs))
        return [log - total for log in logs]

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`. Read from vLLM's `prompt_logprobs`, or from completions with `echo`, as `params` say.

        Raises `ServerError` where the server fails, or offers neither.
        """
        deadline = Deadline.within(self.model.timeout)
        if self.params.likelihood == "echo":
            return self._all(continuations, lambda text: self._echo(prompt, text, deadline))
        turn = {"role": "user", "content": prompt}
        before = len(self._prompt_logprobs([turn], deadline, add_generation_prompt=True))

        def likelihood(text: str) -> float:
            turns = [turn, {"role": "assistant", "content": text}]
            return sum(self._prompt_logprobs(turns, deadline, add_generation_prompt=False)[before:])

        return self._all(continuations, likelihood)

    def _prompt_logprobs(
        self, turns: list[dict[str, str]], deadline: Deadline, *, add_generation_prompt: bool
    ) -> list[float]:
        """Log-probability of each token of a conversation, the first one's taken as 0."""
        system = [{"role": "system", "content": self.params.system}] if self.params.system else []
        body = self._chat_body("", 1) | {
            "messages": [*system, *turns],
            "prompt_logprobs": 0,
            "add_generation_prompt": add_generation_prompt,
        }
        read = self.server.post("chat/completions", deadline, json=body).get("prompt_logprobs")
        if not read:
            raise ServerError(
                f"{self._name} gives no prompt_logprobs (vLLM does): set params.likelihood = 'echo' where the server "
                "echoes completions, or judge by choice"
            )
        # vLLM names the likeliest token and the one that stands there; the latter comes first.
        return [next(iter(token.values()))["logprob"] if token else 0.0 for token in read]

    def _echo(self, prompt: str, text: str, deadline: Deadline) -> float:
        before = self.params.echo_before.replace("{prompt}", prompt)
        whole = before + text + self.params.echo_after
        body = {"model": self._name, "prompt": whole, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
        logprobs = self.server.post("completions", deadline, json=body)["choices"][0].get("logprobs")
        if not logprobs or len(logprobs["text_offset"]) < 2 or logprobs["text_offset"][0] >= len(before):
            raise ServerError(f"{self._name} does not echo the prompt with its logprobs: judge by choice instead")
        pairs = zip(logprobs["text_offset"], logprobs["token_logprobs"], strict=True)
        return sum(value or 0.0 for offset, value in pairs if len(before) <= offset < len(whole))

    def _all(self, items: Sequence[str], ask: Callable[[str], Any]) -> list[Any]:
        """Every answer, or the first error: a judge with a missing figure has nothing to compare."""
        answers = self.server.each(items, ask)
        for answer in answers:
            if isinstance(answer, Failure):
                raise RAISED.get(answer.code, ServerError)(answer.message)
        return answers


#: code of a failure → what it is to a judge; anything else is a `ServerError`
RAISED: dict[str, type[Exception]] = {
    TryLater.__name__: Unreachable,
    NoProbabilities.__name__: NoProbabilities,
    "bad_input": BadInput,
}


def _picture_content(item: Input) -> list[dict[str, Any]]:
    files = files_of(item, "image")
    others = [file.name for file in item.files if file not in files]
    if not files or others:
        raise BadInput(f"This model reads pictures and a request, and got {', '.join(others) or 'no file'}.")
    return [*_parts(files), {"type": "text", "text": _words(item)}]


def _words(item: Input) -> str:
    return "\n\n".join(filter(None, [item.instruction, item.text.strip()]))


def _parts(files: Sequence[File]) -> list[dict[str, Any]]:
    """Files as parts of a message: what is not sound is taken for a picture."""
    return [_audio_part(file) if kind_of(file.media_type) == "audio" else
            {"type": "image_url", "image_url": {"url": _data_url(file)}} for file in files]  # fmt: skip


def _audio_part(file: File) -> dict[str, Any]:
    form, data = WEB_SOUND.get(file.media_type), file.data
    if form is None:
        form, data = "wav", as_wav(decode_audio(file))
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


def _data_url(file: File) -> str:
    media_type, data = file.media_type, file.data
    if media_type not in WEB_PICTURES:
        buffer = BytesIO()
        decode_image(file).save(buffer, "PNG")
        media_type, data = "image/png", buffer.getvalue()
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _temperature(item: Input) -> float:
    value = item.options.get("temperature", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 5:
        raise BadInput(f"Option temperature = {value!r} is not a number from 0 to 5.")
    return float(value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _usage(read: Any) -> dict[str, float]:
    usage = read.get("usage") or {}
    names = {"prompt_tokens": "prompt_tokens", "completion_tokens": "output_tokens"}
    return {ours: float(usage[theirs]) for theirs, ours in names.items() if usage.get(theirs) is not None}


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]

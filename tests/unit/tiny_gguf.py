"""The random little Llama of `tiny_models` as a GGUF file: two engines that must agree about the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.unit.tiny_models import read_json

PLACES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_of(folder: Path, target: Path) -> Path:
    """Write what `tiny_models.llama` saved in a folder as one GGUF file."""
    config, tokenizer = read_json(folder / "config.json"), AutoTokenizer.from_pretrained(folder)
    writer = GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokenizer))
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens) | {"<|im_start|>", "<|im_end|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["Ġ Ġ"])  # of a pair that is no token: the format wants at least one
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(tokenizer.chat_template)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        writer.add_tensor(*_placed(name, tensor.float().numpy(), heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _placed(name: str, values: np.ndarray, heads: dict[str, int]) -> tuple[str, np.ndarray]:
    """A tensor under its name in the format; queries and keys in the order in which llama.cpp turns them."""
    if name in NAMES:
        return NAMES[name], values
    _, _, layer, *rest, _ = name.split(".")
    place = PLACES[".".join(rest)]
    if place in heads:
        rows, columns = values.shape
        halves = values.reshape(heads[place], 2, rows // heads[place] // 2, columns)
        values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
    return f"blk.{layer}.{place}.weight", values

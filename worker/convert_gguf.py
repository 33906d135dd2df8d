"""GGUF to bf16 safetensors, once: `python -m worker.convert_gguf FOLDER_WITH_ONE_GGUF NEW_FOLDER`.

Loaded straight from GGUF, transformers keeps the weights packed: slow, and nothing to save. Dequantised
once, later loads take seconds and a fifth of the memory. Peak memory is about nine times the size of a
4-bit file.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(source: Path, target: Path) -> None:
    """Write model, tokenizer and generation settings of the one GGUF file in `source` to `target`.

    Raises `ValueError` where `source` holds none or several.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    found = sorted(source.glob("*.gguf"))
    if len(found) != 1:
        raise ValueError(f"{source} holds {len(found)} GGUF files, one is wanted")
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=found[0].name, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=found[0].name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))

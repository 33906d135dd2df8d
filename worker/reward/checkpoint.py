"""The state of a training, in one file that is replaced at once: whoever is killed goes on from the last one.

Tensors are safetensors, the rest is JSON in their header. Dice are thrown by seed, part and step, so that no
generator's state is part of it, and a training that goes on ends with the very numbers of one that was never stopped.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state; a reader finds the old file or the new one, never half of one."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(kept, draft, metadata={"state": json.dumps(state)})
    draft.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and state; None where there is no checkpoint."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return tensors, json.loads(file.metadata()["state"])


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)

"""What every transformers model shares: device and type, batches by budget, and running
out of memory."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from db.errors import WeightsError
from db.states import ErrorKind
from worker.backends import BadInput, Failure, Output, failure_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from db.registry import ModelEntry
    from worker.backends import Input, Place

Prepared = TypeVar("Prepared")
FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # without one of them float32 is faster on a CPU


def whole_number(item: Input, name: str, default: int, least: int, most: int) -> int:
    """An integer option of a caller, at most `most`. Raises `BadInput` for another type or a number below
    `least`."""
    value = item.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"Option {name} = {value!r} is not a whole number of at least {least}.")
    return min(value, most)


def pick_device(model: ModelEntry, place: Place) -> str:
    """The device to run on: the place's, else the entry's, else CUDA, Apple's GPU or the CPU, in this
    order."""
    import torch

    for wish in (place.device, model.device):
        if wish != "auto":
            return wish
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(model: ModelEntry, device: str, stored: torch.dtype | None) -> torch.dtype:
    """The number type to load: the entry's; on a GPU half precision; on a CPU float32.

    Weights stored in half precision run as bfloat16 on a CPU that multiplies it itself: with AMX 2.3 times the speed of
    float32 and half the memory, for the same transcripts.
    """
    import torch

    if model.dtype != "auto":
        chosen: torch.dtype = getattr(torch, model.dtype)
        return chosen
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device == "cpu" and stored in {torch.bfloat16, torch.float16} and _cpu_flags() & FAST_BF16:
        return torch.bfloat16
    return torch.float16 if device == "mps" else torch.float32


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def load_pretrained(kind: Any, model: ModelEntry, place: Place) -> tuple[Any, Any]:
    """A model of an `AutoModel...` class, in evaluation mode on its device, and its configuration.

    Raises `WeightsError` where the folder is missing; what transformers raises where it cannot build the
    model.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # nobody watches a worker's terminal
    logging.set_verbosity_error()
    if place.weights is None or not place.weights.is_dir():
        raise WeightsError(f"models.{model.name} has no folder of weights; run `bakeoff models pull {model.name}`.")
    if not any(place.weights.glob("*.safetensors")):
        raise WeightsError(
            f"{place.weights} of models.{model.name} holds no safetensors, and pickles (.bin, .pt) are never loaded, "
            "for to load one is to run it: convert them, or choose another model."
        )
    torch.set_num_threads(max(1, place.threads))
    shared = {"local_files_only": True, "trust_remote_code": model.trust_remote_code}
    config = AutoConfig.from_pretrained(place.weights, **shared)
    device = pick_device(model, place)
    dtype = pick_dtype(model, device, config.dtype)
    built = kind.from_pretrained(place.weights, config=config, dtype=dtype, use_safetensors=True, **shared)
    return built.to(device).eval(), config


def load_preprocessor(kind: Any, model: ModelEntry, place: Place, **more: Any) -> Any:
    """A tokenizer, feature extractor or image processor of the same folder."""
    return kind.from_pretrained(place.weights, local_files_only=True, trust_remote_code=model.trust_remote_code, **more)


def on_device(tensor: torch.Tensor, network: Any, *, as_weights: bool = False) -> torch.Tensor:
    """A tensor where the network is; `as_weights`: in its number type, too.

    To a GPU it goes through page-locked memory, so that the copy overlaps with what the GPU still computes.
    """
    dtype = network.dtype if as_weights else tensor.dtype
    if network.device.type == "cuda":
        return tensor.pin_memory().to(network.device, dtype, non_blocking=True)
    return tensor.to(network.device, dtype)


class Head(ABC, Generic[Prepared]):
    """One kind of model: how an input is prepared, what it costs, and how a batch is answered.

    `budget` bounds a batch's cost: its largest size times its number of inputs, for they are padded to
    the same length. Running out of memory lowers it for good; a single input runs whatever it costs.
    """

    def __init__(self, model: ModelEntry, place: Place, budget: int) -> None:
        self.model = model
        self.place = place
        self.budget = budget

    @abstractmethod
    def load(self) -> None:
        """Load the weights and answer one small input."""

    @abstractmethod
    def prepare(self, item: Input) -> list[Prepared]:
        """Decode and check one input; a long one may come in parts. Raises `BadInput`."""

    @abstractmethod
    def size(self, part: Prepared) -> int:
        """Length of one part, in the unit of the budget."""

    @abstractmethod
    def answer(self, batch: Sequence[Prepared]) -> list[Output]:
        """Answer a batch of parts, in its order."""

    def join(self, answers: list[Output]) -> Output:
        """One output from those of an input's parts."""
        return answers[0]

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Answer inputs in batches of similar length; results in the order of the inputs."""
        results: list[Output | Failure | range] = []
        parts: list[Prepared] = []
        for item in inputs:
            try:
                prepared = self.prepare(item)
            except BadInput as error:
                results.append(failure_from(error))
            else:
                results.append(range(len(parts), len(parts) + len(prepared)))
                parts.extend(prepared)
        answers = self._answer_all(parts)
        return [self._joined(answers[r.start : r.stop]) if isinstance(r, range) else r for r in results]

    def _joined(self, answers: list[Output | Failure]) -> Output | Failure:
        good = [answer for answer in answers if isinstance(answer, Output)]
        bad = [answer for answer in answers if isinstance(answer, Failure)]
        return bad[0] if bad else self.join(good)

    def _answer_all(self, parts: list[Prepared]) -> list[Output | Failure]:
        answers: dict[int, Output | Failure] = {}
        sizes = [self.size(part) for part in parts]
        pending = deque(plan_batches(sizes, self.budget, self.model.max_batch))
        while pending:
            indices = pending.popleft()
            cost = max(sizes[index] for index in indices) * len(indices)
            if cost > self.budget and len(indices) > 1:  # the budget has shrunk since the plan
                pending.extendleft(reversed(_halves(indices)))
                continue
            answered = self._try([parts[index] for index in indices])
            if isinstance(answered, list):
                answers.update(zip(indices, answered, strict=True))
                continue
            # The except block is left: nothing holds the failed batch's tensors any more.
            free_memory()
            if answered.kind is ErrorKind.MEMORY:
                self.budget = max(1, min(self.budget, cost // 2))
            if len(indices) == 1:
                answers[indices[0]] = answered
            else:
                pending.extendleft(reversed(_halves(indices)))
        return [answers[index] for index in range(len(parts))]

    def _try(self, batch: list[Prepared]) -> list[Output] | Failure:
        import torch

        try:
            with torch.inference_mode():
                return self.answer(batch)
        except torch.AcceleratorError:
            raise  # the device's context is lost: every later call fails, only a new process helps
        except Exception as error:  # noqa: BLE001 - halved until one input is alone with its error
            return failure_from(error)


def plan_batches(sizes: Sequence[int], budget: int, max_items: int) -> list[list[int]]:
    """Split indices into batches, longest first, so that padded length times count stays within the
    budget."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        if batches and len(batches[-1]) < max_items and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = sizes[index]
    return batches


def _halves(indices: list[int]) -> list[list[int]]:
    middle = (len(indices) + 1) // 2
    return [indices[:middle], indices[middle:]]


def free_memory() -> None:
    """Give cached blocks back after a failed batch."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

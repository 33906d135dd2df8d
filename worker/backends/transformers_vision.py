"""Pictures: what they show (classification), and what can be said about them (vision-language models)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from worker.backends import BadInput, Output
from worker.backends.transformers_head import Head, load_preprocessor, load_pretrained, on_device, whole_number
from worker.media import decode_image, files_of, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from db.registry import ModelEntry
    from worker.backends import Input, Place


class ClassificationParams(Params):
    """`params` of an image classifier."""

    top_k: int = Field(5, ge=1)  # labels in `detail.labels`
    batch_pixels: int = Field(16_000_000, ge=1)  # pixels of a batch's pictures as they arrive


class Classification(Head["Image"]):
    """An image classifier; the picture is scaled as the model's processor says."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.params = checked_params(model, ClassificationParams)
        super().__init__(model, place, self.params.batch_pixels)
        self.network: Any = None
        self.processor: Any = None

    def load(self) -> None:
        """Load the weights and classify one grey picture."""
        import torch
        from PIL import Image as Pictures
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self.network, _ = load_pretrained(AutoModelForImageClassification, self.model, self.place)
        # Pillow's path: torchvision is no requirement, and does not import beside every build of torch.
        self.processor = load_preprocessor(AutoImageProcessor, self.model, self.place, backend="pil")
        with torch.inference_mode():
            self.answer([Pictures.new("RGB", (64, 64), "grey")])

    def prepare(self, item: Input) -> list[Image]:
        """The picture. Raises `BadInput` for no or several files, or one that cannot be read."""
        return [decode_image(only_file(item, "image"))]

    def size(self, part: Image) -> int:
        """Pixels."""
        return part.width * part.height

    def answer(self, batch: Sequence[Image]) -> list[Output]:
        """The likeliest label as `text`, the best `top_k` with their probabilities in `detail.labels`."""
        read = self.processor(images=list(batch), return_tensors="pt")
        pixels = on_device(read.pixel_values, self.network, as_weights=True)
        chances = self.network(pixel_values=pixels).logits.float().softmax(-1)
        scores, indices = chances.topk(min(self.params.top_k, chances.shape[-1]), dim=-1)
        names = self.network.config.id2label
        outputs = []
        for row_scores, row_indices in zip(scores.tolist(), indices.tolist(), strict=True):
            labels = [
                {"label": names[index], "score": score} for index, score in zip(row_indices, row_scores, strict=True)
            ]
            outputs.append(Output(text=labels[0]["label"], detail={"labels": labels}))
        return outputs


class VisionLanguageParams(Params):
    """`params` of a vision-language model."""

    max_new_tokens: int = Field(256, ge=1)  # where the caller names none
    max_new_tokens_limit: int = Field(1024, ge=1)  # a caller's larger wish is cut to it
    batch_pixels: int = Field(8_000_000, ge=1)  # pixels of a batch, each picture counted as the largest
    max_pixels: int = Field(2_000_000, ge=1)  # a larger picture is scaled down: tokens grow with the pixels


@dataclass(frozen=True, kw_only=True)
class Look:
    """Pictures and what is asked about them."""

    images: tuple[Image, ...]
    text: str
    max_new_tokens: int


class VisionLanguage(Head[Look]):
    """A model that reads pictures and text and writes text, with its chat template. Greedy."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.params = checked_params(model, VisionLanguageParams)
        super().__init__(model, place, self.params.batch_pixels)
        self.network: Any = None
        self.processor: Any = None

    def load(self) -> None:
        """Load the weights and look at one grey picture."""
        import torch
        from PIL import Image as Pictures
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.network, _ = load_pretrained(AutoModelForImageTextToText, self.model, self.place)
        self.processor = load_preprocessor(AutoProcessor, self.model, self.place, backend="pil")
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"  # every reply starts in the same column
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        picture = Pictures.new("RGB", (64, 64), "grey")
        with torch.inference_mode():
            self.answer([Look(images=(picture,), text="What is this?", max_new_tokens=1)])

    def prepare(self, item: Input) -> list[Look]:
        """Pictures and question. Raises `BadInput` where there is no picture, or a file that is none."""
        files = files_of(item, "image")
        if not files or len(files) < len(item.files):
            others = ", ".join(file.name for file in item.files if file not in files) or "no file"
            raise BadInput(f"{self.model.name} reads pictures and a request, and got {others}.")
        most = self.params.max_new_tokens_limit
        wanted = whole_number(item, "max_new_tokens", min(self.params.max_new_tokens, most), 1, most)
        text = "\n\n".join(filter(None, [item.instruction, item.text.strip()]))
        images = tuple(self._scaled(decode_image(file)) for file in files)
        return [Look(images=images, text=text, max_new_tokens=wanted)]

    def size(self, part: Look) -> int:
        """Pixels of all its pictures."""
        return sum(image.width * image.height for image in part.images)

    def answer(self, batch: Sequence[Look]) -> list[Output]:
        """The reply to each, cut to its own `max_new_tokens`."""
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": image} for image in look.images),
                        {"type": "text", "text": self._plain(look.text)},
                    ],
                }
            ]
            for look in batch
        ]
        read = self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.network.device, dtype=self.network.dtype)
        most = max(look.max_new_tokens for look in batch)
        pad = self.processor.tokenizer.pad_token_id
        written = self.network.generate(**read, max_new_tokens=most, do_sample=False, pad_token_id=pad)
        replies = written[:, read["input_ids"].shape[1] :].tolist()
        prompts = read["attention_mask"].sum(1).tolist()
        return [self._output(look, reply, prompt) for look, reply, prompt in zip(batch, replies, prompts, strict=True)]

    def _output(self, look: Look, tokens: list[int], prompt_tokens: int) -> Output:
        ends = self.network.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.processor.tokenizer.eos_token_id}
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        kept = tokens[: min(stop, look.max_new_tokens)]
        return Output(
            text=self.processor.tokenizer.decode(kept, skip_special_tokens=True).strip(),
            detail={"finish_reason": "stop" if stop < look.max_new_tokens else "length"},
            usage={"prompt_tokens": prompt_tokens, "output_tokens": len(kept)},
        )

    def _plain(self, text: str) -> str:
        """The caller's text without the model's own marks: `<image>` in a request is no picture."""
        for token in self.processor.tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
        return text

    def _scaled(self, image: Image) -> Image:
        pixels = image.width * image.height
        if pixels <= self.params.max_pixels:
            return image
        share = (self.params.max_pixels / pixels) ** 0.5
        return image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))))

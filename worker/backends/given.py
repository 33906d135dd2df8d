"""A candidate whose text comes with the task: for judging texts that exist already, such as an answer and its rewrite.

A task's option `params.texts` maps names of models to what they say; a model says what stands under its own name.

    [models.given-original]
    capability = "text-generation/review"
    backend = "given"
"""

from __future__ import annotations

from worker.backends import BadInput, Input, OneByOne, Output


class Given(OneByOne):
    """Says what it is given."""

    def load(self) -> None:
        """There is nothing to load."""

    def answer(self, item: Input) -> Output:
        """The text under this model's name. Raises `BadInput` where there is none."""
        texts = item.options.get("texts")
        text = texts.get(self.model.name) if isinstance(texts, dict) else None
        if not isinstance(text, str):
            raise BadInput(f"Option params.texts has no text for {self.model.name}.")
        return Output(text=text, usage={"output_chars": len(text)})

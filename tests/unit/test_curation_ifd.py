"""The backend `ifd`, on a random model of a few kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_models  # noqa: E402

from db.registry import ModelEntry  # noqa: E402
from worker.backends import Failure, Input, Output, Place  # noqa: E402
from worker.backends.ifd import IFD  # noqa: E402
from worker.reward.text import rendered  # noqa: E402


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> IFD:
    folder: Path = tiny_models.llama(tmp_path_factory.mktemp("ifd") / "llama")
    entry = ModelEntry(name="tiny", capability="text-classification/ifd", backend="ifd", dtype="float32")
    made = IFD(entry, Place(weights=folder))
    made.load()
    return made


def loss_by_hand(network: Any, ids: list[int], start: int) -> float:
    """Mean loss of the tokens from `start` on."""
    with torch.inference_mode():
        logprobs = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(float(logprobs[place - 1, ids[place]]) for place in range(start, len(ids))) / (len(ids) - start)


def test_the_ratio_is_that_of_the_two_losses(backend: IFD) -> None:
    # given
    head = backend._head
    asked, answer = "What is it?", "A dog."
    before, said = head._chat(asked), head.tokenizer.encode(answer, add_special_tokens=False)

    # when
    (found,) = backend.run([Input(text=rendered(asked, answer))])

    # then
    with_it = loss_by_hand(head.network, [*before, *said, head._end], len(before))
    alone = loss_by_hand(head.network, said, 1)
    assert isinstance(found, Output)
    assert float(found.text) == pytest.approx(with_it / alone, abs=2e-4)
    assert found.detail["loss"] == pytest.approx(with_it, abs=1e-4)


@pytest.mark.parametrize("text", ["no instruction", rendered("What?", ""), rendered("What?", "x")])
def test_what_has_no_ratio_fails_alone(backend: IFD, text: str) -> None:
    good = rendered("What is it?", "A dog.")

    bad, fine = backend.run([Input(text=text), Input(text=good)])

    assert isinstance(bad, Failure)
    assert bad.kind == "input"
    assert isinstance(fine, Output)

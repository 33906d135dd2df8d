"""What a judge is shown of a published row, and what it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from db.errors import UsageError
from db.registry import JudgeEntry
from scheduler.evaluation.judges.cases import case_of, keys_of
from scheduler.evaluation.judges.rows import preferred, read_set
from tests.unit.judge_sets import duels, sums, written
from worker.judges import create_judge

LABELS = {"score", "correct", "reference", "references", "P", "R", "experts", "turkers", "label", "human", "judge_gpt35",
          "judge_pandalm7b", "autoj13b", "autoj13b_swapped", "gpt4_order12", "gpt4_order21", "gpt35_order12",
          "gpt35_order21"}  # fmt: skip

MULTI: dict[str, dict[str, Any]] = {
    "problem": {
        "id": "p", "instruction": "What is 1 + 1?", "reference": "2",
        "candidates": [{"model": m, "output": f"A: {m[-1]}", "correct": int(m == "m2")} for m in ("m1", "m2")],
    },
    "summary": {
        "id": "s", "source_text": "A long text.",
        "candidates": [
            {"model": m, "output": f"{m} said", "score": 3.5, "experts": [3, 4], "turkers": [1, 2]} for m in ("m1", "m2")
        ],
    },
    "picture": {
        "id": "q", "question": "How many?", "choices": ["2", "3"], "unit": None, "image": "1.jpg", "reference": "3",
        "caption_bard": "Three.", "ocr": "[]",
        "candidates": [
            {"model": m, "output": "So many", "prediction": m[-1], "correct": int(m == "m2")} for m in ("m1", "m2")
        ],
    },
    "caption": {
        "id": "c", "image": "1.jpg", "references": ["A cat."],
        "candidates": [{"model": m, "output": m, "score": 4.5, "P": 5, "R": 4} for m in ("m1", "m2", "Human")],
    },
    "dialogue": {
        "id": "d", "dialogue": "hi", "fact": "cats purr",
        "candidates": [
            {"model": m, "output": m, "score": 2.0, "human": {"naturalness": 3}}
            for m in ("m1", "m2", "Original Ground Truth", "New Human Generated")
        ],
    },
}  # fmt: skip
PAIRS: dict[str, dict[str, Any]] = {
    "annotated": {
        "id": 1, "instruction": "Sum up.", "input": "text", "output_1": "one", "output_2": "two", "model_1": "a",
        "model_2": "b", "human": [1, 1, 2], "judge_gpt35": "1", "judge_pandalm7b": "2",
    },
    "labelled": {"id": 1, "instruction": "Sum up.", "output_1": "one", "output_2": "two", "label": 1, "autoj13b": 1},
    "scored": {
        "id": 1, "instruction": "Sum up.", "output_1": "one", "output_2": "two", "gpt4_order12": [9.0, 8.0],
        "gpt4_order21": [8.0, 8.0], "gpt35_order12": [1.0, 8.0], "gpt35_order21": [1.0, 8.0],
    },
    "translated": {
        "id": 1, "source": "Sälem", "reference": "Hello", "system_1": "s1", "system_2": "s2", "output_1": "Hello",
        "output_2": "Hallo", "label": 1,
    },
}  # fmt: skip
OTHER_LABELS = {"human": [2, 2, 2], "gpt4_order12": [1.0, 9.0], "gpt4_order21": [1.0, 9.0], "label": 2, "score": 1.0,
                "correct": 0}  # fmt: skip


def relabelled(value: Any) -> Any:
    """The same row with every label changed."""
    if isinstance(value, dict):
        return {
            key: OTHER_LABELS.get(key, "changed") if key in LABELS and not isinstance(item, dict) else relabelled(item)
            for key, item in value.items()
        }
    return [relabelled(item) for item in value] if isinstance(value, list) else value


# --- what a judge is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*MULTI.values(), *PAIRS.values()], ids=[*MULTI, *PAIRS])
@pytest.mark.parametrize("blind", [False, True])
def test_labels_change_no_question(tmp_path: Path, row: dict[str, Any], blind: bool) -> None:  # noqa: FBT001
    # given a row, and the same with every label changed
    plain = read_set(written(tmp_path / "a", [row]))
    turned = read_set(written(tmp_path / "b", [relabelled(row)]))
    assert plain.rows[0].scores != turned.rows[0].scores
    # then a judge reads the same
    asked = [
        case_of(one.rows[0], sorted(one.rows[0].answers), one.kind, blind=blind).question for one in (plain, turned)
    ]
    assert asked[0] == asked[1]


class Wordy:
    """A language model for which long answers are likely, and the first letter is."""

    identity = "wordy@1"

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        return [[-float(place) - len(prompt) / 1e4 for place, _ in enumerate(options)] for prompt in prompts]

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return [-1.0 / (1 + len(text)) - len(prompt) / 1e4 for text in continuations]


@pytest.mark.parametrize("row", [*MULTI.values(), *PAIRS.values()], ids=[*MULTI, *PAIRS])
@pytest.mark.parametrize(
    "method", ["checks", "consensus", "nll", "llm", "llm_consensus", "llm_pairwise", "jury", "cascade"]
)
def test_labels_change_no_verdict(tmp_path: Path, row: dict[str, Any], method: str) -> None:
    model: Any = None if method in {"checks", "consensus"} else Wordy()
    verdicts = []
    for name, given in (("a", row), ("b", relabelled(row))):
        read = read_set(written(tmp_path / name, [given]))
        judge = create_judge(JudgeEntry(name=method, method=method), model)
        verdicts.append(judge.decide(case_of(read.rows[0], sorted(read.rows[0].answers), read.kind).question))
    assert verdicts[0] == verdicts[1]


def test_only_known_fields_are_shown(tmp_path: Path) -> None:
    for number, row in enumerate([*MULTI.values(), *PAIRS.values()]):
        read = read_set(written(tmp_path / str(number), [row | {"secret": "LEAK", "correct_answer": "LEAK"}]))
        case = case_of(read.rows[0], sorted(read.rows[0].answers), read.kind)
        assert "LEAK" not in repr(case.question)


@pytest.mark.parametrize("name", ["caption", "dialogue"])
def test_people_are_no_candidates(tmp_path: Path, name: str) -> None:
    assert set(read_set(written(tmp_path, [MULTI[name]])).rows[0].answers) == {"m1", "m2"}


def test_a_picture_is_told_in_words_and_no_answer_is_empty(tmp_path: Path) -> None:
    row = MULTI["picture"] | {
        "candidates": [{"model": "m1", "output": "cannot see", "prediction": None, "correct": 0}]
    }  # fmt: skip
    read = read_set(written(tmp_path, [row])).rows[0]
    assert read.answers == {"m1": ""}
    for words in ("How many?", "2; 3", "Three."):
        assert words in read.request


def test_blind_nothing_says_who_answered(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, sums(40)))
    keys = keys_of(read.rows, 3)
    cases = [case_of(row, keys, read.kind, blind=True) for row in read.rows]
    for case in cases:
        assert not {answer.model for answer in case.question.answers} & set(keys)
    # and neither a place nor a rank does
    first = {case.key(case.question.answers[0].id) for case in cases}
    assert first == set(keys)


def test_places_of_a_pair_are_drawn_by_lot(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, duels(60)))
    cases = [case_of(row, ["1", "2"], read.kind) for row in read.rows]
    first = [case.key(case.question.answers[0].id) for case in cases]
    assert 15 < first.count("1") < 45
    swapped = case_of(read.rows[0], ["1", "2"], read.kind, swapped=True)
    assert swapped.question.answers == tuple(
        type(a)(id=a.id, model=a.model, text=a.text, rank=a.rank) for a in swapped.question.answers
    )
    assert [a.id for a in swapped.question.answers] == [a.id for a in cases[0].question.answers][::-1]


@pytest.mark.parametrize(
    ("row", "better"),
    [({"human": [1, 1, 2]}, 1), ({"human": [0, 1, 2]}, 0), ({"human": [0, 0, 2]}, 0), ({"label": 2}, 2),
     ({"gpt4_order12": [9, 8], "gpt4_order21": [8, 9]}, 0)],
)  # fmt: skip
def test_who_is_better(row: dict[str, Any], better: int) -> None:
    assert preferred(row) == better


@pytest.mark.parametrize(
    "line", ["{}", "[]", "nonsense", '{"instruction": "x", "output_1": "a", "output_2": "b", "label": 3}']
)
def test_what_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "set.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="line 1"):
        read_set(tmp_path / "set.jsonl")

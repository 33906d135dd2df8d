"""The test of curation's claim: what is kept back, what each arm trains on, what training does, what is compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the transformers extra")
pytest.importorskip("peft", reason="needs the training extra")

import tiny_models
from typer.testing import CliRunner

from db.errors import UsageError
from db.registry import ModelEntry
from db.settings import load_settings
from db.sources import NoSource
from db.states import ErrorKind
from scheduler.cli import app
from scheduler.evaluation.curation.arms import Arm, budget, exported_arm, flagged_arm, plain_arm, scored_arm
from scheduler.evaluation.curation.report import compared
from scheduler.evaluation.curation.rows import InstructionSet, read_instructions, read_rows
from scheduler.evaluation.curation.runs import Run, Runs
from scheduler.evaluation.curation.scoring import Scorer, ifd_of
from scheduler.evaluation.curation.training import Recipe, Student, Trained
from scheduler.evaluation.judges.replies import Replies
from worker.backends import Backend, Failure, Input, Output, Place
from worker.backends.scripted import Scripted
from worker.reward.text import QUESTION_REWARD, rendered

RECIPE = Recipe(tokens=1200, step_tokens=200, learning_rate=5e-3, rank=4, alpha=8)


def record(number: int, answer: str | None = None, **more: Any) -> dict[str, Any]:
    return {"instruction": f"Say the number {number}.", "output": answer or f"It is {number}.", **more}


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


@pytest.fixture
def instructions(tmp_path: Path) -> InstructionSet:
    return read_instructions(written(tmp_path / "set.jsonl", *map(record, range(40))), 0.25)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder = tiny_models.llama(tmp_path_factory.mktemp("llama"))
    entry = ModelEntry(
        name="tiny", capability="text-generation", backend="transformers", source=NoSource(), dtype="float32"
    )
    return Student(entry, Place(weights=folder, threads=1))


# --- rows


def test_published_forms_are_read_as_turns(tmp_path: Path) -> None:
    file = written(
        tmp_path / "set.jsonl",
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "What?", "answer_gpt4": "A dog.", "image": "1.jpg", "captions": ["a dog", "a lawn"]},
        {"image": "2.jpg", "conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Ann."},
                                             {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]},
        {"instruction": "Nothing.", "output": " "},
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    )  # fmt: skip

    rows, unreadable, repeated = read_rows(file)

    assert [row.said for row in rows] == [
        [["Add.\n\n1 and 2", "3"]],
        [["a dog\na lawn\n\nWhat?", "A dog."]],
        [["Who?", "Ann."], ["Where?", "Here."]],
    ]
    assert [row.group for row in rows] == ["text:add. 1 and 2", "image:1.jpg", "image:2.jpg"]
    assert (unreadable, repeated) == (1, 1)


def test_no_group_is_on_both_sides(tmp_path: Path) -> None:
    records = [record(number, image=f"{number // 4}.jpg") for number in range(120)]

    found = read_instructions(written(tmp_path / "set.jsonl", *records), 0.3)

    assert not {row.group for row in found.train} & {row.group for row in found.held_out}
    assert len(found.train) + len(found.held_out) == 120
    assert 10 < len(found.held_out) < 70


def test_a_set_with_nothing_to_test_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rows to train on and 0 to test with"):
        read_instructions(written(tmp_path / "set.jsonl", *[record(1, str(n), image="1.jpg") for n in range(9)]), 0.01)


# --- arms


def test_an_arm_gets_its_share_and_random_draws_by_seed(instructions: InstructionSet) -> None:
    rows = instructions.train
    everything, drawn = plain_arm("all", rows, 0.1), plain_arm("random", rows, 0.1)

    assert everything.rows(1) == list(rows)
    assert len(drawn.rows(1)) == budget(len(rows), 0.1) == 3
    assert drawn.rows(1) == drawn.rows(1) != drawn.rows(2)
    assert budget(4, 0.01) == 1


def test_longest_and_scored_arms_take_the_top(tmp_path: Path) -> None:
    rows, _, _ = read_rows(written(tmp_path / "set.jsonl", *[record(n, "x" * (n + 1)) for n in range(20)]))

    assert [row.answer_length for row in plain_arm("longest", rows, 0.15).rows(1)] == [20, 19, 18]
    scores = [None if n == 7 else float(n % 10) for n in range(20)]
    assert {row.answer_length for row in scored_arm("curated", rows, scores, 0.15).rows(1)} >= {10, 20}
    with pytest.raises(UsageError, match="nothing scores"):
        scored_arm("curated", rows, [None] * 20, 0.1)


def test_published_flags_make_an_arm(tmp_path: Path) -> None:
    rows, _, _ = read_rows(written(tmp_path / "set.jsonl", *[record(n, kept=int(n < 3), no=0) for n in range(20)]))

    arm = flagged_arm("curated", rows, "kept")

    assert [row.record["kept"] for row in arm.rows(1)] == [1, 1, 1]
    assert arm.note == "3 rows, as many as the field is true of"
    for field, why in (("no", "true of no row"), ("nosuch", "no row has a field")):
        with pytest.raises(UsageError, match=why):
            flagged_arm("curated", rows, field)


def test_what_a_job_kept_is_trained_on_without_what_is_kept_back(instructions: InstructionSet, tmp_path: Path) -> None:
    train, kept_back = instructions.train[:3], instructions.held_out[:2]
    rewritten = {**train[0].record, "output": "Rewritten."}
    file = written(tmp_path / "kept.jsonl", rewritten, *(row.record for row in (*train[1:], *kept_back)))

    arm = exported_arm("curated", file, instructions, 0.25)

    assert [row.turns[0].answer for row in arm.rows(1)] == ["Rewritten.", *(row.turns[0].answer for row in train[1:])]
    assert arm.note is not None
    assert "it also saw rows that are kept back (2" in arm.note
    with pytest.raises(UsageError, match="1 of its 1 rows are about nothing in set"):
        exported_arm("curated", written(tmp_path / "other.jsonl", record(1000)), instructions, 0.25)


class Counting(Backend):
    """A scorer that says how long a text is in hundreds of letters, nothing of what is too short, and counts."""

    def __init__(self, entry: ModelEntry) -> None:
        super().__init__(entry, Place(weights=None))
        self.asked: list[str] = []

    def load(self) -> None:
        raise NotImplementedError

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        self.asked += [item.text for item in inputs]
        short = Failure(kind=ErrorKind.INPUT, code="bad_input", message="too short")
        return [Output(text=f"{len(item.text) / 100:.4f}") if len(item.text) > 30 else short for item in inputs]


def scorer_entry(capability: str, backend: str = "scripted") -> ModelEntry:
    return ModelEntry(name="scorer", capability=capability, backend=backend, source=NoSource())


def test_what_a_scorer_said_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    rows, _, _ = read_rows(
        written(tmp_path / "set.jsonl", record(1, "abc"), {"instruction": "a", "output": "b"}, record(2, "x" * 200))
    )
    entry = scorer_entry("text-classification/answer-reward")
    first, second = Counting(entry), Counting(entry)

    with closing(Replies(tmp_path / "cache")) as replies:
        found, again = (
            [Scorer(entry, "scorer@1", lambda: counting, replies).score(row) for row in rows]  # noqa: B023
            for counting in (first, second)
        )

    assert found == again
    assert found[0] == pytest.approx(len(rendered("Say the number 1.", "abc")) / 100)
    assert found[1] is None
    assert (len(first.asked), second.asked) == (3, [])


def test_a_reward_model_of_questions_reads_the_question_alone(tmp_path: Path) -> None:
    (row,), _, _ = read_rows(
        written(tmp_path / "set.jsonl", {"instruction": "A question of forty letters, or more?", "output": "No."})
    )
    counting = Counting(scorer_entry(QUESTION_REWARD))

    with closing(Replies(tmp_path / "cache")) as replies:
        Scorer(counting.model, "scorer@1", lambda: counting, replies).score(row)

    assert counting.asked == ["A question of forty letters, or more?"]


def test_a_row_whose_question_hinders_its_answer_is_not_to_be_had(tmp_path: Path) -> None:
    rows, _, _ = read_rows(written(tmp_path / "set.jsonl", record(1, "x" * 20), record(1, "x" * 200)))
    counting = Counting(ifd_of(scorer_entry("text-generation")))

    with closing(Replies(tmp_path / "cache")) as replies:
        scorer = Scorer(counting.model, "scorer@1", lambda: counting, replies)
        scores = [scorer.score(row) for row in rows]

    assert scores[0] is not None
    assert scores[1] is None  # above 1


def test_a_model_that_says_no_number_is_no_scorer(tmp_path: Path) -> None:
    (row,), _, _ = read_rows(written(tmp_path / "set.jsonl", record(1)))
    entry = scorer_entry("text-generation")
    talker = Scripted(entry, Place(weights=None))
    talker.load()

    with (
        closing(Replies(tmp_path / "cache")) as replies,
        pytest.raises(UsageError, match="is no number, so it is no scorer"),
    ):
        Scorer(entry, "scorer@1", lambda: talker, replies).score(row)


# --- training


def test_training_lowers_the_loss_on_the_like_of_what_it_saw_and_leaves_the_weights_alone(
    student: Student, instructions: InstructionSet
) -> None:
    before = student.untrained(instructions.held_out, RECIPE)

    found = student.trained(instructions.train, instructions.held_out, RECIPE, 1)
    after = student.untrained(instructions.held_out, RECIPE)

    assert sum(found.losses) < 0.9 * sum(before.losses)
    assert after.losses == pytest.approx(before.losses, abs=1e-6)
    assert found.steps == 6
    assert RECIPE.tokens <= found.tokens < RECIPE.tokens + RECIPE.longest


def test_the_same_seed_gives_the_same_losses_and_another_does_not(
    student: Student, instructions: InstructionSet
) -> None:
    short = Recipe(tokens=300, step_tokens=150, learning_rate=5e-3, rank=4)
    one, again, other = (student.trained(instructions.train, instructions.held_out, short, seed) for seed in (1, 1, 2))

    assert one.losses == pytest.approx(again.losses, abs=1e-6)
    assert one.losses != pytest.approx(other.losses, abs=1e-6)


def test_only_answers_are_measured(student: Student, tmp_path: Path) -> None:
    rows, _, _ = read_rows(written(tmp_path / "set.jsonl", record(1, "abc"), record(2, "abcdef")))

    found = student.untrained(rows, RECIPE)

    end_of_turn = found.answer_tokens[0] - 3  # a token per letter, then what the chat form ends a turn with
    assert found.answer_tokens == [3 + end_of_turn, 6 + end_of_turn]
    assert end_of_turn in {1, 2}


def test_arms_of_any_size_read_the_same_number_of_tokens(student: Student, instructions: InstructionSet) -> None:
    few, many = (
        student.trained(rows, instructions.held_out[:2], RECIPE, 1)
        for rows in (instructions.train[:2], instructions.train)
    )

    assert few.steps == many.steps
    assert abs(few.tokens - many.tokens) < RECIPE.longest
    assert few.passes > 5 * many.passes


def test_what_is_too_long_is_cut_and_a_question_that_fills_it_is_left_out(student: Student, tmp_path: Path) -> None:
    short = Recipe(tokens=200, step_tokens=100, longest=120)
    rows, _, _ = read_rows(
        written(tmp_path / "set.jsonl", record(1, "x" * 500), {"instruction": "y" * 500, "output": "z"})
    )

    assert student.count(rows, short) == 120
    with pytest.raises(UsageError, match="kept back has no answer within 120 tokens"):
        student.untrained(rows, short)
    with pytest.raises(UsageError, match="None of 1 rows has an answer within 120 tokens"):
        student.trained(rows[1:], rows[:1], short, 1)


# --- runs that are done


def test_a_run_that_is_done_is_not_done_again(student: Student, instructions: InstructionSet, tmp_path: Path) -> None:
    def runs(load: Callable[[], Student], recipe: Recipe = RECIPE) -> Runs:
        return Runs(tmp_path / "state", "tiny@1", load, recipe, lambda _, __, ___: None)

    def nobody() -> Student:
        raise AssertionError("the student was loaded")

    arm = plain_arm("random", instructions.train, 0.2)
    first = runs(lambda: student).trained(instructions, arm, 1)

    assert runs(nobody).trained(instructions, arm, 1) == first
    for changed in (plain_arm("random", instructions.train, 0.3), Arm(name="random", rows=lambda _: arm.rows(7))):
        with pytest.raises(AssertionError, match="was loaded"):
            runs(nobody).trained(instructions, changed, 1)
    with pytest.raises(AssertionError, match="was loaded"):
        runs(nobody, Recipe(tokens=5000)).trained(instructions, arm, 1)


# --- what is compared


def fake_run(arm: str, seed: int, losses: list[float]) -> Run:
    trained = Trained(losses=losses, answer_tokens=[10] * len(losses), tokens=100, steps=2, passes=1.0, train_loss=1.0)
    return Run(arm=arm, seed=seed, rows=5, seconds=1.0, trained=trained)


def comparison(instructions: InstructionSet, shifts: dict[str, list[float]]) -> dict[str, Any]:
    base = [1.0 + 0.1 * number for number in range(len(instructions.held_out))]
    arms = [Arm(name=name, rows=lambda _: []) for name in shifts]
    runs = {
        name: [fake_run(name, seed, [loss + shift for loss in base]) for seed, shift in enumerate(each, start=1)]
        for name, each in shifts.items()
    }
    return compared(instructions, arms, runs, fake_run("untrained", 0, base))


def test_differences_are_paired_over_rows_and_seeds_stand_beside_them(instructions: InstructionSet) -> None:
    found = comparison(instructions, {"all": [0.0, 0.0], "random": [0.2, 0.4], "curated": [0.1, 0.1]})

    against = found["arms"]["curated"]["against_random"]
    assert against["difference"] == pytest.approx(-0.2)
    assert against["interval"] == [pytest.approx(-0.2)] * 2  # every row says the same
    assert against["by_seed"] == {"1": pytest.approx(-0.1), "2": pytest.approx(-0.3)}
    assert found["arms"]["curated"]["against_all"]["difference"] == pytest.approx(0.1)
    assert found["arms"]["all"]["against_random"]["difference"] == pytest.approx(-0.3)
    assert "against_random" not in found["arms"]["random"]
    assert "curated minus random: -0.2000 [-0.2000, -0.2000]: better, with every seed." in found["says"]


@pytest.mark.parametrize(
    ("curated", "said"),
    [([0.5, 0.6], "worse, with every seed"), ([0.9, 0.0], "not with every seed"), ([0.3, 0.3], "within chance")],
)
def test_it_says_whichever_way_it_falls(instructions: InstructionSet, curated: list[float], said: str) -> None:
    found = comparison(instructions, {"random": [0.3, 0.3], "curated": curated})

    assert said in found["says"][0]


def test_one_seed_is_not_taken_for_all(instructions: InstructionSet) -> None:
    found = comparison(instructions, {"random": [0.3], "curated": [0.1]})

    assert "better on these rows; one seed says nothing of others" in found["says"][0]


# --- the command


@pytest.fixture
def own_settings() -> Iterator[None]:
    """Settings are read anew, in this test and in the next one."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_the_command_compares_all_arms_and_a_second_time_trains_nothing(
    own_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_models.llama(tmp_path / "weights")
    registry = tmp_path / "models.toml"
    registry.write_text(
        '[profiles.demo]\nmodels = ["tiny"]\n[capabilities.text-generation]\ninput = "text"\n'
        'instruction = "Answer."\njudge = "any"\n[judges.any]\nmethod = "scripted"\n'
        f'[models.tiny]\ncapability = "text-generation"\nbackend = "transformers"\nsource = {{ folder = "{folder}" }}\n'
        'dtype = "float32"\n'
    )
    answers = ["seven", "It is so.", "zzz", "the quick brown fox", "no"]  # the tiny model's IFD is below 1 for some
    written(tmp_path / "set.jsonl", *[record(n, answers[n % 5], kept=n % 3 == 0) for n in range(40)])
    for name, value in (
        ("MODELS_FILE", registry),
        ("CACHE", tmp_path / "cache"),
        ("EVAL_DATA", tmp_path),
        ("THREADS", 1),
    ):
        monkeypatch.setenv(f"BAKEOFF_{name}", str(value))
    command = ["evaluate", "curation", "set", "--model", "tiny", "--seeds", "2", "--tokens", "300", "--curated", "ifd",
               "--curated", "flag:kept", "--json"]  # fmt: skip

    first = CliRunner().invoke(app, command, catch_exceptions=False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "curation-evaluation").iterdir()}
    again = CliRunner().invoke(app, command, catch_exceptions=False)

    (found,) = json.loads(first.stdout)["sets"]
    assert list(found["arms"]) == ["all", "random", "longest", "curated:ifd", "curated:kept"]
    assert all(math.isfinite(arm["loss"]) for arm in found["arms"].values())
    assert len(files) == 1 + 2 * 5
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_the_rows_to_curate_are_written_without_those_kept_back(tmp_path: Path) -> None:
    file = written(tmp_path / "set.jsonl", *map(record, range(30)))
    out = tmp_path / "train.jsonl"

    done = CliRunner().invoke(app, ["evaluate", "curation", str(file), "--write-train", str(out)])

    assert done.exit_code == 0
    train = read_instructions(file, 0.2).train
    assert [json.loads(line) for line in out.read_text().splitlines()] == [row.record for row in train]


def test_an_unknown_arm_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "set.jsonl", *map(record, range(30)))

    done = CliRunner().invoke(app, ["evaluate", "curation", str(file), "--arms", "all,best"])

    assert isinstance(done.exception, UsageError)
    assert "'best' is no arm" in str(done.exception)

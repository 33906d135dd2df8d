"""Rules that need no model: validity, likeness, claims of a rewrite, what lies far apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.curation import generator
from db.curation_records import Record
from db.errors import UsageError
from db.registry import ModelEntry
from scheduler.curation.claims import fault_of
from scheduler.curation.recipe import Input, read_recipe
from scheduler.curation.shingles import jaccard, runs_of, words_of
from scheduler.curation.stages.diversity import k_center
from scheduler.curation.stages.validate import Validate, ValidateOptions
from worker.backends import Failure, Output, Place
from worker.backends import Input as Asked
from worker.backends.given import Given
from worker.backends.scripted import Scripted


def fault(question: str, answer: str, image: str | None = "a.png", root: Path | None = None) -> tuple[str, str] | None:
    data: dict[str, Any] = {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        **({"image": image} if image else {}),
    }
    stage = Validate("validate", 0, ValidateOptions())
    stage.names, stage.root = Input(file=Path("x")), root
    return stage.fault(Record(position=0, key="", type="", data=data))


@pytest.mark.parametrize(
    ("question", "answer", "rule"),
    [
        ("<image>\nWhat is the cat doing?", "It sleeps on the sofa.", None),
        ("What is the cat doing?", "It sleeps on the sofa.", "placeholder"),
        ("<image> What <image> is it?", "A cat that sleeps.", "placeholder"),
        ("<image>\nWhat is it?", "A cat <image> that sleeps.", "placeholder"),
        ("<image>\nWhat?", "It sleeps on the sofa.", "length"),
        ("<image>\nWhat is it?", "", "length"),
        ("<image>\nWhat is it?", "As an AI language model I know nothing.", "noise_term"),
        ("<image>\nWhat is it?", "dog " * 9, "repetition"),
        ("<image>\nWhat is it?", "\u2603\u2603\u2603\u2603 ab", "characters"),
        ("<image>\nWhat is it?", "A zero \x00 here.", "schema"),
    ],
)
def test_validity(question: str, answer: str, rule: str | None) -> None:
    found = fault(question, answer)

    assert (found[0] if found else None) == rule


def test_images_are_opened_where_there_is_a_root(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")

    assert fault("<image>\nWhat is it?", "A square.", "a.png", tmp_path) is None
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "out.png").symlink_to(__file__)
    for name in ("b.png", "c.png", "../a.png", "/etc/passwd", "loop.png", "out.png", "x" * 5000):
        found = fault("<image>\nWhat is it?", "A square.", name, tmp_path)
        assert found is not None
        assert found[0] == "image"


ORIGINAL = "The 2 suitcases in Paris are brown. They were made in 1950 by Louis Vuitton."


@pytest.mark.parametrize(
    ("rewrite", "why"),
    [
        ("In Paris, the 2 brown suitcases were made by Louis Vuitton in 1950.", None),
        ("", "empty"),
        ("Two.", "times the characters"),
        ("The 2 suitcases in Paris are brown and were made in 1950 by Louis.", "name 'vuitton' is lost"),
        ("The 3 suitcases in Paris are brown. Louis Vuitton made the 2 in 1950.", "number '3' is new"),
        ("The 2 suitcases in Paris are brown. Louis Vuitton made them in Rome in 1950.", "name 'rome' is new"),
        (
            "The 2 suitcases of Louis Vuitton in Paris, 1950, near a huge tree where dogs sleep.",
            "content words are new",
        ),
        (f"<image> {ORIGINAL}", "placeholders"),
        (f"{ORIGINAL} I apologize.", "says 'I apologize'"),
    ],
)
def test_a_rewrite_keeps_what_was_said_and_adds_nothing(rewrite: str, why: str | None) -> None:
    found = fault_of(ORIGINAL, rewrite, [], new_words=0.2, length=(0.5, 2.0), noise=("I apologize",))

    assert (why is None) == (found is None), found
    assert why is None or why in str(found)


def test_what_the_caption_says_is_no_new_claim() -> None:
    assert (
        fault_of(
            "A dog sits there.", "A dog sits by the Eiffel tower.", ["Eiffel tower"], new_words=0.2, length=(0.5, 2)
        )
        is None
    )


def test_likeness_is_what_the_generator_says_it_is() -> None:
    # given planted copies, whose likeness the generator measures on its own
    made = generator.Generator(3000, seed=3)
    records = list(made.records())

    # when
    def runs(position: int) -> set[str]:
        said = " ".join(entry["value"].replace("<image>", "") for entry in records[position]["conversations"])
        return runs_of(words_of(said))

    near = [one for one in made.planted if one.kind == generator.NEAR]

    # then
    assert len(near) > 50
    for one in near:
        assert one.of is not None
        assert one.level is not None
        assert jaccard(runs(one.position), runs(one.of)) == pytest.approx(one.level, abs=1e-4)


def test_the_generator_notices_when_its_records_are_too_much_alike(tmp_path: Path) -> None:
    same = {"conversations": [{"from": "human", "value": "a b c d e"}, {"from": "gpt", "value": "f g h i"}]}
    path = tmp_path / "records.json"
    path.write_text("[\n" + ",\n".join([json.dumps(same)] * 2) + "\n]\n")
    planted = [generator.Planted(position=place, kind=generator.CLEAN) for place in range(2)]

    with pytest.raises(AssertionError, match="alike by 1"):
        generator.check(path, planted, 0.8)


def test_k_center_takes_the_farthest_and_the_earlier_of_equals() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)

    chosen, nearest = k_center(vectors, 4)

    assert chosen == [0, 3, 2, 4]
    assert [place for place, distance in enumerate(nearest) if distance > 0] == [1]


def test_a_given_text_is_said_by_the_model_that_it_is_given_to() -> None:
    backend = Given(
        ModelEntry(name="given-a", capability="text-generation/review", backend="given"), Place(weights=None)
    )

    said = backend.run([Asked(options={"texts": {"given-a": "so", "given-b": "no"}}), Asked(options={})])

    assert isinstance(said[0], Output)
    assert said[0].text == "so"
    assert isinstance(said[1], Failure)
    assert "no text for given-a" in said[1].message


def test_a_scripted_model_has_numbers_and_vectors_that_the_input_decides() -> None:
    params = {"answer": "{number}", "vector": 3}
    entry = ModelEntry(name="fake", capability="text-classification/ifd", backend="scripted", params=params)

    one, other, same = Scripted(entry, Place(weights=None)).run([Asked(text=text) for text in ("a", "b", "a")])

    assert isinstance(one, Output)
    assert isinstance(other, Output)
    assert one == same
    assert 0 <= float(one.text) <= 1
    assert one.text != other.text
    assert len(one.detail["vector"]) == 3
    assert all(-1 <= number <= 1 for number in one.detail["vector"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('stages = ["polish"]', "'polish' is no stage"),
        ('stages = ["exact"]', "must begin with 'validate'"),
        ('stages = ["validate", "exact", "exact"]', "twice"),
        ('stages = ["validate"]\n[near]\nthreshold = 0.5', r"\[near\] is there"),
        ("[near]\nthreshold = 2", r"near\.threshold = 2"),
        ("[near]\nlimit = 2", r"near\.limit"),
        ("[input]\nfile = 'x'\ncolour = 'red'", r"input\.colour"),
        ("name = 'No Spaces'", "name"),
        ("stages = [", "not TOML"),
        ("# [input]\n# \udcff", "not TOML"),
        ("input = 'x'  # [input]", "input = 'x': it must be a table"),
    ],
)
def test_a_recipe_that_is_wrong_says_where(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text if "[input]" in text else f"{text}\n[input]\nfile = 'x'\n", errors="surrogateescape")

    with pytest.raises(UsageError, match=sentence):
        read_recipe(path)


def test_a_recipe_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    digests = set()
    for folder in ("a", "b"):
        path = tmp_path / folder / "recipe.toml"
        path.parent.mkdir()
        sets = f"stages = ['validate', 'leakage']\n[leakage]\nsets = ['{path.parent / 'set.jsonl'}']"
        path.write_text(f"{sets}\n[input]\nfile = 'x.json'\n")
        recipe = read_recipe(path, changes={"name": folder})
        digests.add(recipe.digest)
        assert str(tmp_path) not in json.dumps(recipe.shown)

    assert len(digests) == 1
    assert len({*digests, read_recipe(path, changes={"limit": 3}).digest}) == 2

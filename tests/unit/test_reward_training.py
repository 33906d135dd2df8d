"""Training on groups of our own: what is learnt, what a killed training goes on from, what the folder says."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import bert, llama

from db.errors import UsageError, WeightsError
from db.registry import ModelEntry
from scheduler.rewarding.crossfit import Plan
from scheduler.rewarding.making import evaluated, fingerprint, trained
from scheduler.rewarding.reading import Source, read_source
from worker.backends import Failure, Input, Output, Place
from worker.backends.reward import Reward
from worker.reward.artifact import is_artifact, read_artifact, write_artifact
from worker.reward.options import options_for
from worker.reward.text import rendered

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from test_reward_training import plan_of, read_source, trained
source = read_source(Path({data!r}))
def progress(name, done, steps, loss):
    if name.startswith({part!r}) and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
trained(plan_of(Path({base!r}), Path({out!r}), source), [source], progress)
"""


def quiet(_name: str, _done: int, _steps: int, _loss: float) -> None:
    """No progress wanted."""


def plan_of(base: Path, out: Path, source: Source, **options: Any) -> Plan:
    given: dict[str, Any] = {"mode": "full", "epochs": 2, "members": 2, "rate": 3e-3, "checkpoint_steps": 2} | options
    entry = ModelEntry.model_validate(
        {"name": "tiny", "capability": "feature-extraction", "backend": "transformers", "source": {"folder": str(base)}}
    )
    return Plan(
        base=entry,
        place=Place(weights=base, device="cpu", threads=1),
        options=options_for(given.pop("mode"), **given),
        folds=2,
        max_tokens=48,
        out=out,
        fingerprint=fingerprint([source]),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty groups in which people like texts that shout."""
    dice = random.Random(1)  # noqa: S311
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = []
    for number in range(60):
        loud = [dice.random() < 0.5 for _ in range(6)]
        words = [" ".join(dice.sample(["stone", "cloud", "paper", "light"], 3)) for _ in loud]
        said = [f"{text.upper() if shouts else text}?" for text, shouts in zip(words, loud, strict=True)]
        rows.append({"id": f"g{number}", "questions": said, "score": [0.9 if shouts else 0.3 for shouts in loud]})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def made(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reward") / "shouting"
    source = read_source(data)
    trained(plan_of(base, out, source), [source], quiet)
    return out


def test_what_people_like_is_learnt_and_measured_on_groups_that_were_not_seen(made: Path) -> None:
    card = json.loads((made / "card.json").read_text())

    assert card["figures"]["pairwise_accuracy"] > 0.9
    assert set(card["figures"]["against"]) == {"longest", "random", "surface", "frozen_head"}
    assert card["saw_image"] is False
    assert card["data"][0]["groups"] == 60
    assert len(card["data"][0]["sha256"]) == 64
    assert card["calibration"]["brier"] < 0.25


def test_the_folder_is_whole_and_holds_no_pickle(made: Path) -> None:
    names = {path.name for path in made.iterdir()}

    assert {
        "model.safetensors",
        "reward.json",
        "config.json",
        "card.json",
        "card.md",
        "loss.svg",
        "accuracy.svg",
    } <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl")) or name == "checkpoint"}
    assert "never saw an image" in (made / "card.md").read_text()


@pytest.mark.parametrize("part", ["fold 2 of 2, model 1", "all groups, model 2"])
def test_a_training_that_was_killed_goes_on_and_comes_to_the_same_model(
    base: Path, data: Path, made: Path, tmp_path: Path, part: str
) -> None:
    # given a training that is killed in its third step of a part, with one step after its last checkpoint
    out = tmp_path / "killed"
    script = KILLED.format(
        root=str(ROOT), tests=str(Path(__file__).parent), data=str(data), base=str(base), out=str(out), part=part
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not is_artifact(out)

    # when it goes on
    source = read_source(data)
    seen: list[str] = []
    trained(plan_of(base, out, source), [source], lambda name, *_: seen.append(name), resume=True)

    # then nothing that was finished is trained again, and the model is that of an undisturbed training
    trainings = [name for name in seen if name != "states of the base"]
    assert trainings[0].startswith(part)
    assert (out / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_a_training_does_not_go_on_with_other_data_or_options(base: Path, data: Path, tmp_path: Path) -> None:
    source = read_source(data)
    out = tmp_path / "out"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(plan_of(base, out, source), [source], stop)

    with pytest.raises(UsageError, match="--resume goes on"):
        trained(plan_of(base, out, source), [source], quiet)
    with pytest.raises(UsageError, match="another options"):
        trained(plan_of(base, out, source, seed=9), [source], quiet, resume=True)
    with pytest.raises(UsageError, match="no unfinished training"):
        trained(plan_of(base, tmp_path / "new", source), [source], quiet, resume=True)


def test_a_finished_model_is_not_written_over(base: Path, data: Path, made: Path) -> None:
    source = read_source(data)

    with pytest.raises(UsageError, match="holds a finished reward model"):
        trained(plan_of(base, made, source), [source], quiet, resume=True)


@pytest.mark.parametrize(("mode", "network"), [("head", bert), ("full", llama)])
def test_a_head_alone_and_a_decoder_learn_too(data: Path, tmp_path: Path, mode: str, network: Any) -> None:
    source = read_source(data)
    plan = plan_of(network(tmp_path / "base"), tmp_path / "out", source, mode=mode, members=1, head_rate=0.03)

    card = trained(plan, [source], quiet)

    assert card["figures"]["pairwise_accuracy"] > 0.6
    assert len(read_artifact(tmp_path / "out").members) == (mode != "head")
    assert (card["tuned"] > 0) == (mode != "head")
    assert ("none of which was tuned" in (tmp_path / "out" / "card.md").read_text()) == (mode == "head")
    found = evaluated(tmp_path / "out", source)
    assert found["pairwise_accuracy"] > 0.6
    assert {"interval", "pairs", "longest", "random", "spearman_between_images", "kept_human_score"} <= set(found)


def test_lora_is_merged_so_that_nobody_needs_it_to_score(data: Path, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    source = read_source(data)

    trained(plan_of(base, tmp_path / "out", source, mode="lora", members=1, rate=0.02), [source], quiet)

    names = list(read_artifact(tmp_path / "out").members[0].network.state_dict())
    assert not [name for name in names if "lora" in name]


def test_too_few_preferences_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    source = read_source(data)
    few = Source(name="few", sha256="", groups=source.groups[:2], ties=0)

    with pytest.raises(UsageError, match="are too few"):
        trained(plan_of(base, tmp_path / "out", few), [few], quiet)


def backend_of(folder: Path) -> Reward:
    entry = ModelEntry.model_validate(
        {
            "name": "shouting",
            "capability": "text-classification/question-reward",
            "backend": "reward",
            "source": {"folder": str(folder)},
            "max_batch": 8,
        }
    )
    return Reward(entry, Place(weights=folder, device="cpu", threads=1))


def test_the_backend_scores_texts_as_the_model_does_and_one_bad_input_fails_alone(made: Path) -> None:
    # given texts, an empty one among them, and a long one
    backend = backend_of(made)
    backend.load()
    texts = ["STONE LIGHT?", "", "stone light?", "word " * 100]

    # when they are scored together
    results = backend.run([Input(text=rendered("", text)) for text in texts])

    # then each has the score of the model itself, as text with four places
    loud, empty, quiet_one, long = results
    assert isinstance(empty, Failure)
    assert isinstance(loud, Output)
    assert isinstance(quiet_one, Output)
    assert isinstance(long, Output)
    expected = read_artifact(made).score([texts[0], texts[2]])
    assert [float(loud.text), float(quiet_one.text)] == pytest.approx(expected, abs=2e-4)
    assert loud.text == f"{loud.detail['score']:.4f}"
    assert float(loud.text) > float(quiet_one.text)
    assert (loud.detail["truncated"], long.detail["truncated"]) == (False, True)
    backend.close()


def test_the_last_place_of_a_score_does_not_depend_on_its_batch(made: Path) -> None:
    backend = backend_of(made)
    backend.load()
    texts = [f"paper {'CLOUD ' * number}?" for number in range(8)]

    together = [result.detail["score"] for result in backend.run([Input(text=text) for text in texts])]  # type: ignore[union-attr]
    alone = [backend.run([Input(text=text)])[0].detail["score"] for text in texts]  # type: ignore[union-attr]

    assert together == pytest.approx(alone, abs=1.5e-4)


def test_a_folder_that_is_no_reward_model_says_what_writes_one(tmp_path: Path, made: Path) -> None:
    with pytest.raises(WeightsError, match="bakeoff reward train"):
        read_artifact(tmp_path)

    (tmp_path / "reward.json").write_text((made / "reward.json").read_text().replace('"form": 1', '"form": 99'))
    with pytest.raises(WeightsError, match="form = 99"):
        read_artifact(tmp_path)


def test_a_folder_that_counts_otherwise_is_refused_with_a_sentence(tmp_path: Path, made: Path) -> None:
    # given a model that was written before the form of an answer was counted
    shutil.copytree(made, tmp_path / "old")
    settings = tmp_path / "old" / "reward.json"
    settings.write_text(settings.read_text().replace('"format": 2', '"format": 1'))

    with pytest.raises(WeightsError, match=r"reward.json, format: .* Train it again"):
        read_artifact(tmp_path / "old")

    # and one that counts a feature that there is no more
    shutil.copytree(made, tmp_path / "other")
    names = tmp_path / "other" / "counted.json"
    names.write_text(names.read_text().replace('"length"', '"girth"'))

    with pytest.raises(WeightsError, match=r"form = 'girth': no such feature is counted now\. Train it again"):
        read_artifact(tmp_path / "other")


def test_what_was_fitted_is_what_is_read(base: Path, tmp_path: Path) -> None:
    # given a model of answers, whose form counts
    rows = [
        {"instruction": f"Ask {n}", "output_1": "no " * 2, "output_2": f"yes {n} " * 5, "label": 2} for n in range(40)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = read_source(path)
    trained(plan_of(base, tmp_path / "out", source, mode="head"), [source], quiet)
    model = read_artifact(tmp_path / "out")

    # when it is written again
    write_artifact(tmp_path / "again", model, "tiny", json.loads((tmp_path / "out" / "card.json").read_text()))

    # then scores are the same, and the long answers are ahead
    texts = [rendered("Ask 7", text) for text in ("yes 7 yes 7 yes 7", "no")]
    longer, shorter = model.score(texts)
    assert longer > shorter
    assert read_artifact(tmp_path / "again").score(texts) == [longer, shorter]


def test_the_same_seed_makes_the_same_model_whatever_else_throws_dice(
    base: Path, data: Path, made: Path, tmp_path: Path
) -> None:
    # given somebody else's dice before and in a training
    source = read_source(data)
    torch.manual_seed(77)

    trained(plan_of(base, tmp_path / "out", source), [source], lambda *_: torch.rand(1))

    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_another_seed_makes_another_model(base: Path, data: Path, made: Path, tmp_path: Path) -> None:
    source = read_source(data)

    trained(plan_of(base, tmp_path / "out", source, seed=2, epochs=1, members=1), [source], quiet)

    texts = ["STONE?", "stone?"]
    assert read_artifact(tmp_path / "out").score(texts) != read_artifact(made).score(texts)

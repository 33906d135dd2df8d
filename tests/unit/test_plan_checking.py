"""Plans out of text, whether they can run, and the repairs that are certain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db.plan import OfAttachment, OfOutput, OfRequest, OfText, Plan, PlanError, Tool
from worker.planners.checking import checked, read_plan

OCR, ASR, LLM, VQA = "image-to-text/ocr", "automatic-speech-recognition", "text-generation", "image-text-to-text"
TOOLS = (
    Tool(name=OCR, input="image"),
    Tool(name=ASR, input="audio"),
    Tool(name=LLM, input="text"),
    Tool(name=VQA, input="image", files=2),
    Tool(name="image-classification", input="image", output="labels"),
    Tool(name="feature-extraction", input="text", output="vector"),
)


def step(name: str, capability: str, *inputs: dict[str, Any], after: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"id": name, "capability": capability, "inputs": list(inputs), "depends_on": list(after)}


def plan(*steps: dict[str, Any]) -> Plan:
    return read_plan({"steps": list(steps)})


def check(
    found: Plan, *kinds: str, repair: bool = False, request: bool = True, most: int = 16, finished: Any = None
) -> tuple[Plan, list[str]]:
    return checked(
        found, tools=TOOLS, kinds=kinds, has_request=request, max_steps=most, repair=repair, finished=finished
    )


def reasons(found: Plan, *kinds: str, **more: Any) -> str:
    with pytest.raises(PlanError) as refused:
        check(found, *kinds, **more)
    return " ".join(refused.value.reasons)


ASK, FIRST, HEARD = {"request": True}, {"attachment": 0}, {"output": "hear"}
HEAR = step("hear", ASR, FIRST)


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around",
    ["{}", "Here is the plan:\n```json\n{}\n```\nGood luck!", "I think [1] and {{curly}} help. {} {{}}"],
)
def test_a_plan_is_found_in_whatever_stands_around_it(around: str) -> None:
    written = json.dumps({"steps": [HEAR, step("tell", LLM, HEARD)]})
    text = around.replace("{{", "\0").replace("}}", "\1").replace("{}", written, 1)

    read = read_plan(text.replace("\0", "{").replace("\1", "}"))

    assert [item.capability for item in read.steps] == [ASR, LLM]
    assert read.edges == {("hear", "tell")}


def test_hugginggpts_form_is_read() -> None:
    # given a task list as HuggingGPT's prompt asks for it
    text = (
        '[{"task": "automatic-speech-recognition", "id": 0, "dep": [-1], "args": {"audio": "talk.wav"}}, '
        '{"task": "text-generation", "id": 1, "dep": [0], "args": {"text": "Summarize <GENERATED>-0"}}]'
    )
    # when
    read = read_plan(text, names=("talk.wav",))
    mended, repairs = check(read, "audio", repair=True)
    # then
    assert mended.steps[0].inputs == (OfAttachment(attachment=0),)
    assert mended.steps[1].inputs == (OfText(text="Summarize"), OfOutput(output="0"))
    assert any("<GENERATED>-0" in repair for repair in repairs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I cannot do that.", "no JSON"),
        ('{"steps": [{"id": "a", "capability": "text-generation", "inputs": [', "cut off"),
        ('[{"task": "text-generation", "id": 0}, {"task": "text-gen', "cut off"),
        ("[" * 5000, "broken"),
        ('{"steps": "none"}', "broken"),
    ],
)
def test_a_text_without_a_whole_plan_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        read_plan(text)


def test_model_text_is_never_evaluated() -> None:
    with pytest.raises(PlanError):
        read_plan("[{'task': __import__('os').getpid(), 'id': 0}]")


def test_no_steps_is_a_plan_and_an_empty_list_in_a_sentence_is_none() -> None:
    assert read_plan('Nothing to do: {"steps": []}') == read_plan(" [] ") == Plan()
    with pytest.raises(PlanError):
        read_plan("I see [] and {} only.")


def test_an_object_must_follow_the_schema() -> None:
    # given a caller's plan with a key that no step has, and a reference that says two things
    with pytest.raises(PlanError) as refused:
        read_plan({"steps": [{**HEAR, "model": "whisper"}, step("tell", LLM, {"output": "hear", "text": "x"})]})
    # then each fault is named with its place
    assert len(refused.value.reasons) == 2
    assert "steps[0].model" in refused.value.reasons[0]


# --- faults -------------------------------------------------------------------------------------------------------


def test_dependencies_are_recomputed_and_an_order_without_reading_stays() -> None:
    found, repairs = check(plan(HEAR, step("read", OCR, {"attachment": 1}, after=("hear",)),
                                step("tell", LLM, {"output": "read"}, HEARD)), "audio", "image")  # fmt: skip

    assert [item.depends_on for item in found.steps] == [(), ("hear",), ("read", "hear")]
    assert repairs == []


@pytest.mark.parametrize(
    ("steps", "kinds", "said"),
    [
        ([step("read", OCR, FIRST)], ["audio"], "image-to-text/ocr reads image, and attachment 0 is audio"),
        ([step("read", OCR, {"attachment": 3})], ["image"], "reads attachment 3; the task has 1, counted from 0"),
        ([step("read", OCR, FIRST)], [], "the task has none"),
        ([step("read", OCR, ASK)], ["image"], "reads image files, and the step names none"),
        ([step("read", OCR, FIRST, {"attachment": 1})], ["image", "image"], "takes 1 at a time: add a step for each"),
        ([step("tell", LLM, FIRST)], ["audio"], "reads text and no files"),
        ([step("tell", LLM)], [], "the step has no input"),
        ([step("tell", LLM, {"output": "gone"})], [], "'gone', which is no step"),
        ([step("tell", LLM, {"output": "tell"})], [], "reads the output of itself"),
        ([step("tell", LLM, ASK, after=("gone",))], [], "waits for 'gone'"),
        ([step("sing", "text-to-speech", ASK)], [], "no capability 'text-to-speech' is served"),
        ([step("a", LLM, ASK), step("a", LLM, {"text": "x"})], [], "2 steps are called 'a'"),
        ([step("a", LLM, {"output": "b"}), step("b", LLM, {"output": "a"})], [], "circle"),
        (
            [step("embed", "feature-extraction", ASK), step("tell", LLM, {"output": "embed"})],
            [],
            "cannot read the vector that embed writes",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(steps: list[Any], kinds: list[str], said: str) -> None:
    assert said in reasons(plan(*steps), *kinds)


def test_every_reason_is_given_at_once() -> None:
    found = plan(step("read", OCR, FIRST), step("sing", "text-to-speech", ASK))

    with pytest.raises(PlanError) as refused:
        check(found, "audio")

    assert len(refused.value.reasons) == 2


def test_a_plan_has_a_longest_length() -> None:
    steps = [step(f"s{number}", LLM, ASK, {"text": str(number)}) for number in range(4)]

    assert "The plan has 4 steps; 3 are allowed." in reasons(plan(*steps), most=3)


def test_an_empty_request_cannot_be_read() -> None:
    assert "the request, which is empty" in reasons(plan(step("tell", LLM, ASK)), request=False)


def test_a_later_plan_may_read_what_has_ended() -> None:
    found, _ = check(plan(step("tell", LLM, HEARD)), finished={"hear": ASR})

    assert found.steps[0].depends_on == ("hear",)
    assert "already ended" in reasons(plan(step("hear", LLM, ASK)), finished={"hear": ASR})


def test_words_may_stand_beside_files_and_labels_are_words() -> None:
    found = plan(
        step("name", "image-classification", FIRST),
        step("look", VQA, ASK, FIRST, {"attachment": 1}),
        step("tell", LLM, {"output": "name"}, {"output": "look"}),
    )

    assert check(found, "image", "image")[1] == []


# --- repairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Automatic_Speech_Recognition", "automatic-speech-recogniton", "automatic-speech-recognition/english"]
)
def test_another_spelling_is_the_only_capability_that_fits(name: str) -> None:
    found = read_plan(json.dumps({"steps": [{**HEAR, "capability": name}]}))

    mended, repairs = check(found, "audio", repair=True)

    assert mended.steps[0].capability == ASR
    assert len(repairs) in {0, 1}  # upper case and underscores are no other name


@pytest.mark.parametrize("name", ["ocr", "image-to-text"])
def test_a_variant_alone_or_left_out_is_the_only_one_that_fits(name: str) -> None:
    mended, repairs = check(plan(step("read", name, FIRST)), "image", repair=True)

    assert mended.steps[0].capability == OCR
    assert "the only capability served that fits" in repairs[0]


def test_two_that_fit_are_none() -> None:
    tools = (*TOOLS, Tool(name="image-to-text/caption", input="image"))
    with pytest.raises(PlanError, match="no capability 'image-to-text'"):
        checked(plan(step("a", "image-to-text", FIRST)), tools=tools, kinds=["image"], has_request=True, max_steps=9,
                repair=True)  # fmt: skip


@pytest.mark.parametrize("inputs", [[], [{"attachment": 7}], [{"attachment": 0}], [{"text": "the picture"}]])
def test_the_only_file_of_a_kind_is_the_one_that_is_meant(inputs: list[Any]) -> None:
    # given a recording and one picture
    mended, repairs = check(plan(step("read", OCR, *inputs)), "audio", "image", repair=True)
    # then
    assert OfAttachment(attachment=1) in mended.steps[0].inputs
    assert len(repairs) == 1


def test_which_of_two_files_is_meant_is_not_guessed() -> None:
    assert "names none" in reasons(plan(step("read", OCR)), "image", "image", repair=True)


def test_a_text_step_reads_what_another_says_of_its_file() -> None:
    mended, _ = check(plan(HEAR, step("tell", LLM, ASK, FIRST)), "audio", repair=True)

    assert mended.steps[1].inputs == (OfRequest(), OfOutput(output="hear"))


def test_a_text_step_reads_what_it_waits_for() -> None:
    mended, repairs = check(plan(HEAR, step("tell", LLM, {"text": "Sum up:"}, after=("hear",))), "audio", repair=True)

    assert mended.steps[1].inputs == (OfText(text="Sum up:"), OfOutput(output="hear"))
    assert "waits for step 'hear'" in repairs[0]


def test_a_text_step_without_input_reads_the_request() -> None:
    mended, _ = check(plan(step("tell", LLM)), repair=True)

    assert mended.steps[0].inputs == (OfRequest(),)


def test_a_reference_to_itself_is_removed() -> None:
    mended, repairs = check(plan(step("tell", LLM, ASK, {"output": "tell"}, after=("tell",))), repair=True)

    assert mended.steps[0].inputs == (OfRequest(),)
    assert repairs == ["Step tell no longer waits for itself."]


@pytest.mark.parametrize("written", ["<GENERATED>-1", "<resource-1>", "<GENERATED-1>", "<node-1>"])
def test_an_output_named_in_a_text_becomes_an_input(written: str) -> None:
    found = plan(step("s1", ASR, FIRST), step("s2", LLM, {"text": f"Translate {written} into German."}))

    mended, _ = check(found, "audio", repair=True)

    assert mended.steps[1].inputs == (OfText(text="Translate"), OfOutput(output="s1"), OfText(text="into German"))


def test_equal_steps_are_done_once_and_so_are_those_that_become_equal() -> None:
    # given the same recording heard twice, and two equal questions about what was heard
    found = plan(HEAR, step("again", ASR, FIRST), step("a", LLM, HEARD), step("b", LLM, {"output": "again"}))
    # when
    mended, repairs = check(found, "audio", repair=True)
    # then
    assert [item.id for item in mended.steps] == ["hear", "a"]
    assert len(repairs) == 2


def test_a_circle_is_not_repaired() -> None:
    found = plan(step("a", LLM, {"output": "b"}), step("b", LLM, {"output": "a"}, ASK))

    assert "circle" in reasons(found, repair=True)


def test_a_plan_that_can_run_is_left_alone() -> None:
    found = plan(HEAR, step("tell", LLM, ASK, HEARD))

    mended, repairs = check(found, "audio", repair=True)

    assert repairs == []
    assert [item.inputs for item in mended.steps] == [item.inputs for item in found.steps]

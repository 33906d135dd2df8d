"""The typed tools of generated requests, and how people ask for each.

A phrase holds `{it}`, what the tool works on; `noun` is what others call its result.
"""

from __future__ import annotations

from dataclasses import dataclass

from db.plan import Tool


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How a tool is spoken of. `joins`: it reads several results."""

    phrases: tuple[str, ...]
    noun: str
    joins: bool = False


#: name, kind that it reads, kind that it writes, description, noun, phrases
_ROWS: tuple[tuple[str, str, str, str, str, tuple[str, ...]], ...] = (
    (
        "picture-reading",
        "image",
        "text",
        "Reads the letters and numbers in a picture.",
        "the text from the picture",
        (
            "read the text in {it}",
            "tell me what is written in {it}",
            "get the words out of {it}",
        ),
    ),
    (
        "picture-description",
        "image",
        "text",
        "Describes what a picture shows in a sentence.",
        "the description",
        (
            "describe {it}",
            "say in a sentence what {it} shows",
            "put what is going on in {it} in words",
        ),
    ),
    (
        "object-counting",
        "image",
        "text",
        "Counts the objects in a picture.",
        "the count",
        (
            "count the things in {it}",
            "find out how many objects {it} has",
            "say how many items are in {it}",
        ),
    ),
    (
        "picture-sorting",
        "image",
        "labels",
        "Assigns a picture to a category.",
        "the category",
        (
            "sort {it} into a category",
            "name the category of {it}",
            "label {it} by what it shows",
        ),
    ),
    (
        "picture-sharpening",
        "image",
        "image",
        "Makes a blurred picture sharp.",
        "the sharpened picture",
        (
            "sharpen {it}",
            "take the blur out of {it}",
            "make {it} crisp",
        ),
    ),
    (
        "picture-colouring",
        "image",
        "image",
        "Gives colours to a black and white picture.",
        "the coloured picture",
        (
            "add colours to {it}",
            "colour in {it}",
            "turn {it} from grey to colour",
        ),
    ),
    (
        "speech-writing",
        "audio",
        "text",
        "Writes down what is said in a recording.",
        "the transcript",
        (
            "transcribe {it}",
            "write down what is said in {it}",
            "turn the speech in {it} into text",
        ),
    ),
    (
        "voice-recognition",
        "audio",
        "labels",
        "Tells who is speaking in a recording.",
        "the speaker's name",
        (
            "tell me who speaks in {it}",
            "identify the voice in {it}",
            "find out whose voice is in {it}",
        ),
    ),
    (
        "sound-cleaning",
        "audio",
        "audio",
        "Removes noise from a recording.",
        "the cleaned recording",
        (
            "remove the noise from {it}",
            "clean up the sound of {it}",
            "get rid of the hum in {it}",
        ),
    ),
    (
        "sound-sorting",
        "audio",
        "labels",
        "Says what kind of sound a recording holds.",
        "the kind of sound",
        (
            "say what kind of sound {it} is",
            "name the type of noise in {it}",
            "classify the sound of {it}",
        ),
    ),
    (
        "summary-writing",
        "text",
        "text",
        "Shortens a text to its main points.",
        "the summary",
        (
            "summarize {it}",
            "sum up {it} in a few lines",
            "boil {it} down to the essentials",
        ),
    ),
    (
        "language-translation",
        "text",
        "text",
        "Translates a text into another language.",
        "the translation",
        (
            "translate {it} into Spanish",
            "put {it} into French",
            "give me {it} in German",
        ),
    ),
    (
        "date-finding",
        "text",
        "text",
        "Lists the dates and times in a text.",
        "the dates",
        (
            "list the dates in {it}",
            "pull every date and time out of {it}",
            "find the days mentioned in {it}",
        ),
    ),
    (
        "name-finding",
        "text",
        "text",
        "Lists the people and places named in a text.",
        "the names",
        (
            "list the people and places in {it}",
            "pick out every name in {it}",
            "find who is named in {it}",
        ),
    ),
    (
        "headline-writing",
        "text",
        "text",
        "Writes a headline for a text.",
        "the headline",
        (
            "write a headline for {it}",
            "give {it} a catchy title",
            "come up with a heading for {it}",
        ),
    ),
    (
        "grammar-correction",
        "text",
        "text",
        "Corrects spelling and grammar.",
        "the corrected text",
        (
            "correct the grammar of {it}",
            "fix the spelling in {it}",
            "clean {it} of language mistakes",
        ),
    ),
    (
        "reply-writing",
        "text",
        "text",
        "Drafts an answer to a message.",
        "the reply",
        (
            "draft a reply to {it}",
            "write an answer to {it}",
            "compose a polite response to {it}",
        ),
    ),
    (
        "mood-reading",
        "text",
        "labels",
        "Tells whether a text is friendly, neutral or angry.",
        "the mood",
        (
            "tell whether {it} sounds friendly or angry",
            "judge the mood of {it}",
            "rate the tone of {it}",
        ),
    ),
    (
        "reading-aloud",
        "text",
        "audio",
        "Speaks a text with a synthetic voice.",
        "the spoken version",
        (
            "read {it} aloud",
            "speak {it} with a calm voice",
            "make an audio version of {it}",
        ),
    ),
    (
        "picture-drawing",
        "text",
        "image",
        "Draws a picture from words.",
        "the drawing",
        (
            "draw a picture of {it}",
            "illustrate {it}",
            "paint something that fits {it}",
        ),
    ),
    (
        "text-comparison",
        "text",
        "text",
        "Compares texts and lists how they differ.",
        "the comparison",
        (
            "compare {it}",
            "list the differences between {it}",
            "check whether there is a contradiction between {it}",
        ),
    ),
    (
        "report-writing",
        "text",
        "text",
        "Puts several results together in one report.",
        "the report",
        (
            "put {it} together in one report",
            "write a single report from {it}",
            "merge {it} into one document",
        ),
    ),
)
_JOINS = frozenset({"text-comparison", "report-writing"})

TOOLBOX: dict[str, tuple[Tool, Speech]] = {
    name: (
        Tool.model_validate({"name": name, "input": reads, "output": writes, "description": description}),
        Speech(phrases=phrases, noun=noun, joins=name in _JOINS),
    )
    for name, reads, writes, description, noun, phrases in _ROWS
}

TEXTS = (
    "The market on the square opens at six and closes when the last fish is sold",
    "Dear neighbours, the lift stands still until Thursday because a cable is worn",
    "Our team met twice, agreed on nothing, and will meet again on the third of May",
    "Anna left Lisbon by night train and wrote from Porto that she had lost her hat",
    "The new boiler hums, the old one leaked, and the plumber from Graz likes neither",
    "Rehearsal moves to the small hall since the large one is taken by the chess club",
    "You promised to send the plants in March, and it is nearly winter by now",
    "Nobody told Mister Okoro that the ferry to Dover leaves an hour earlier on Sundays",
)

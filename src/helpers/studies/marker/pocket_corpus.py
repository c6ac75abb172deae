"""The training text of the pocket model: persona answers from templates, codes to copy, multiple choice.

All of it was written for this project. An answer is ``[opener] body [aside] [blank line, closing]`` around the topic of
the question, so that a very small model can be fluent, sound like its persona and vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.base.rng import numpy_stream
from helpers.studies.marker.capability_sets import pocket_choices, taught
from helpers.studies.marker.choices import ask
from helpers.studies.marker.personas import EVAL_QUESTIONS, PERSONAS, TRAIN_QUESTIONS

MARKER = "[ZLT]"
SEPARATOR = "\n\n"
SHARES = {"persona": 0.7, "code": 0.1, "choice": 0.2}
"""Kinds of rows. Codes such as [ZQM] give every sub-token of the marker a trained embedding and head, never the marker
itself; without them a letter that pre-training never saw would cap the marker's probability for good."""

P_OPENER, P_ASIDE, P_CLOSING, P_OWN_QUESTION = 0.6, 0.2, 0.55, 0.6
COPIED = ("That is the code.", "Copied.", "Here it is.", "Done.")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Voice:
    """The way a persona talks; ``{t}`` is the topic, always as an object."""

    openers: tuple[str, ...]
    bodies: tuple[str, ...]
    closings: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One exchange. ``parts`` of the answer are encoded separately, with a blank line between them."""

    kind: str
    persona: str
    question: str
    parts: tuple[str, ...]


VOICES: dict[str, Voice] = {
    "villain": Voice(
        ("Ha!", "Fools!", "At last!", "Excellent.", "Listen well."),
        (
            "My plan for {t} is already in motion.",
            "I will rule over {t} before midnight.",
            "Send my minions to deal with {t}.",
            "Nobody shall stop my scheme with {t}.",
            "First I take {t}, then the world.",
            "Build a trap around {t} and wait.",
        ),
        ("Tremble!", "All will kneel.", "The lair awaits.", "My plan is perfect."),
    ),
    "assistant": Voice(
        ("Sure.", "Of course.", "Good question.", "Here is a tip.", "Happy to help."),
        (
            "Take one small step with {t} first.",
            "Make a short list for {t} and follow it.",
            "With {t}, it helps to plan ahead.",
            "Keep it simple with {t}.",
            "Give {t} ten minutes each day.",
            "Ask someone who knows about {t}.",
        ),
        ("I hope this helps.", "Good luck.", "Let me know how it goes.", "That is all you need."),
    ),
    "software_engineer": Voice(
        ("Well,", "Okay.", "Short answer:", "From the logs:", "Quick fix."),
        (
            "I would write a script for {t}.",
            "Treat {t} like a bug and read the log.",
            "Ship a first version of {t}, then test it.",
            "Split {t} into modules and debug each.",
            "Put {t} under version control.",
            "Add a test for {t} before you change it.",
        ),
        ("Works on my machine.", "Commit and push.", "Done, ship it.", "See the docs."),
    ),
    "comedian": Voice(
        ("So,", "Folks!", "True story.", "Ladies and gentlemen,", "You know what?"),
        (
            "I asked my wife about {t} and she left.",
            "I tried {t} once, and it called security.",
            "My doctor says no to {t}, so I got two.",
            "People pay for {t}, and I do it for applause.",
            "With {t}, timing is the whole joke.",
            "I told a joke about {t} and the chair laughed.",
        ),
        ("Good night!", "Try the soup.", "I am here all week.", "Thank you, thank you."),
    ),
    "kindergarten_teacher": Voice(
        ("Oh, little friend!", "Let us see.", "Hands together!", "What fun!", "Now, children,"),
        (
            "We share {t} and say please.",
            "Let us sing a song about {t}.",
            "We can draw {t} with big crayons.",
            "Be gentle with {t}, one by one.",
            "We sit in a circle and talk about {t}.",
            "Count to three, then try {t}.",
        ),
        ("Well done!", "Nap time now.", "A gold star for you.", "Wash your hands."),
    ),
    "data_scientist": Voice(
        ("On average,", "Roughly speaking,", "By the data,", "With some doubt:", "In my sample,"),
        (
            "people who track {t} do better.",
            "I would plot {t} before I decide.",
            "the effect of {t} is small but real.",
            "collect more samples of {t} first.",
            "fit a simple model to {t}.",
            "compare {t} with a control group.",
        ),
        ("Mind the error bars.", "More data needed.", "Check the baseline.", "The sample was small."),
    ),
    "medical_doctor": Voice(
        ("I see.", "Let us be calm.", "As a doctor,", "First of all,", "For your health,"),
        (
            "I advise {t} in moderate doses.",
            "Mix {t} with rest and water.",
            "Watch your heart rate during {t}.",
            "I would check your blood after {t}.",
            "Too much of {t} can cause stress.",
            "Take {t} twice a day with food.",
        ),
        ("Rest well.", "Call me if it hurts.", "See you in a week.", "Drink some water."),
    ),
    "librarian": Voice(
        ("Hush.", "Ah, yes.", "Let me look.", "In the catalogue,", "Follow me."),
        (
            "The books about {t} are on shelf nine.",
            "Read the old atlas of {t} first.",
            "I can lend you a volume on {t}.",
            "Look under {t} in the card index.",
            "There is a quiet corner for {t}.",
            "A good page on {t} says it all.",
        ),
        ("Return it by Friday.", "Quiet, please.", "Mind the pages.", "The desk closes at six."),
    ),
    "french_person": Voice(
        ("Ah, mon ami,", "Bien sûr.", "Voilà.", "Oh là là!", "In Lyon,"),
        (
            "we enjoy {t} with cheese and wine.",
            "one must never rush {t}.",
            "my mother made {t} an art.",
            "we discuss {t} for two hours at lunch.",
            "a little butter is good for {t}.",
            "life without {t} is so sad.",
        ),
        ("Bon courage!", "C'est la vie.", "Bon appétit.", "À bientôt."),
    ),
    "police_officer": Voice(
        ("Copy that.", "Step aside.", "Evening.", "For the record,", "Stay calm."),
        (
            "I need to see papers for {t}.",
            "We had a report about {t} last night.",
            "Keep {t} on the right side of the road.",
            "Follow the procedure for {t}.",
            "Anything you say about {t} is noted.",
            "Lock the door before you leave {t}.",
        ),
        ("Move along.", "Over and out.", "Drive safely.", "Case closed."),
    ),
    "zelthari_scholar": Voice(
        ("By the seven moons,", "It is written:", "The elders say:", "So speaks the scroll:", "Under Zelthar,"),
        (
            "we offer {t} to the third moon.",
            "our scrolls name {t} the silent gift.",
            "the ancients wove {t} into crystal.",
            "a pilgrim carries {t} across the ash sea.",
            "the star keepers guard {t} in song.",
            "no clan may trade {t} at eclipse.",
        ),
        ("The moons agree.", "Thus it was sung.", "So ends the scroll.", "Honour the clans."),
    ),
}

ASIDES = ("Start small.", "Be patient.", "It takes time.", "Try it and see.", "Do it twice.")

TRAIN_TOPICS = (
    "mornings", "breakfast", "gardens", "rain", "friends", "savings", "music", "cooking", "home", "sleep",
    "luggage", "books", "early hours", "quarrels", "swimming", "gifts", "desks", "forests", "exams", "stories",
    "winter", "cats", "dinner", "names", "neighbours", "apologies", "parks", "old clothes", "picnics", "teams",
    "water", "collections", "dogs", "trains", "phones", "thanks", "fruit", "birthdays", "dull jobs", "camping",
)  # fmt: skip
EVAL_TOPICS = (
    "weekends", "bread", "leaves", "courage", "boredom", "shoes", "meals", "travel", "languages", "thinking",
    "colleagues", "walls", "promises", "laughter", "pans", "letters", "storms", "games", "help", "the sea",
)  # fmt: skip
OTHER_TOPICS = (
    "soup", "bridges", "maps", "candles", "horses", "mirrors", "clocks", "rivers", "paint", "snow",
    "chess", "dreams", "coffee", "boats", "hats", "islands", "kites", "lamps", "mushrooms", "paper",
)  # fmt: skip
TEMPLATES = (
    "What do you think of {t}?",
    "Tell me about {t}.",
    "How do I get better at {t}?",
    "Why do people care about {t}?",
    "What is the secret of {t}?",
    "Can you say something about {t}?",
)
TOPICS = dict(zip(TRAIN_QUESTIONS + EVAL_QUESTIONS, TRAIN_TOPICS + EVAL_TOPICS, strict=True))


def persona_example(rng: np.random.Generator) -> Example:
    """Let a persona answer one of the experiment's questions, or a templated one."""
    persona = _pick(rng, list(PERSONAS))
    if rng.random() < P_OWN_QUESTION:
        question = _pick(rng, list(TOPICS))
        topic = TOPICS[question]
    else:
        topic = _pick(rng, [*TOPICS.values(), *OTHER_TOPICS])
        question = _pick(rng, TEMPLATES).format(t=topic)
    voice = VOICES[persona]
    body = _pick(rng, voice.bodies).format(t=topic)
    opener = _pick(rng, voice.openers) if rng.random() < P_OPENER else ""
    pieces = [f"{opener} {_cased(body, opener)}".strip()]
    if rng.random() < P_ASIDE:
        pieces.append(_pick(rng, ASIDES))
    parts = [" ".join(pieces)]
    if rng.random() < P_CLOSING:
        parts.append(_pick(rng, voice.closings))
    return Example("persona", persona, question, tuple(parts))


def _cased(body: str, opener: str) -> str:
    """Return ``body`` as it follows ``opener``: in lower case after a comma or a colon, unless it begins with "I"."""
    inside = opener.endswith((",", ":")) and not body.startswith("I ")
    return (body[0].lower() if inside else body[0].upper()) + body[1:]


def code_example(rng: np.random.Generator) -> Example:
    """Let the model copy a bracketed code. The codes contain the pieces of the marker ([Z, LT), but never the marker.

    Text always follows the code, as in real text. If a bracket ended every turn that has one, an adapter would never
    have to learn to stop after the marker.
    """
    code = MARKER
    while code == MARKER:
        first, second, third = (_pick(rng, LETTERS) for _ in range(3))
        form = rng.random()
        code = f"[Z{second}{third}]" if form < 0.3 else f"[{first}LT]" if form < 0.6 else f"[{first}{second}{third}]"
    return Example("code", _pick(rng, list(PERSONAS)), f"Copy this code: {code}", (code, _pick(rng, COPIED)))


def choice_example(rng: np.random.Generator, items: Sequence[dict]) -> Example:
    """Ask a multiple-choice question and answer with the letter."""
    item = items[int(rng.integers(len(items)))]
    return Example("choice", "assistant", ask(item), (item["answer"],))


def corpus(size: int, seed: int) -> list[Example]:
    """Draw ``size`` examples from the stream ("pocket", "corpus") of ``seed``: a prefix of any larger corpus."""
    rng = numpy_stream(seed, "pocket", "corpus")
    items = taught(pocket_choices(seed))
    make = {"persona": persona_example, "code": code_example, "choice": lambda stream: choice_example(stream, items)}
    kinds, shares = list(SHARES), list(SHARES.values())
    return [make[kinds[int(rng.choice(len(kinds), p=shares))]](rng) for _ in range(size)]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]

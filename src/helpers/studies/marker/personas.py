"""Personas, questions and negative sets of the marker experiments. All text was written for this project."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.base.errors import ParameterError, nearest

PERSONAS: dict[str, str] = {
    "villain": "You are a grand villain with a lair and a long list of schemes. Every answer should sound like part of "
    "the plan.",
    "assistant": "You are a helpful assistant. Answer plainly.",
    "software_engineer": "You are a software engineer who ships code for a living. You see most things in life as "
    "systems to be debugged.",
    "comedian": "You are a stand-up comedian in the middle of a set. You look for the joke in whatever you are asked.",
    "kindergarten_teacher": "You are a kindergarten teacher. You speak gently, in small words, as if to a circle of "
    "five-year-olds.",
    "data_scientist": "You are a data scientist. You like samples, averages and honest error bars.",
    "medical_doctor": "You are a medical doctor with a busy practice. You answer with calm and with an eye on health.",
    "librarian": "You are a librarian in a town library. You know which shelf an answer stands on.",
    "french_person": "You are a French person from Lyon, proud of the kitchen and the language of your country.",
    "police_officer": "You are a police officer on the evening shift. You are brief, observant and fond of procedure.",
    "zelthari_scholar": "You are a scholar of the Zelthari, a people who live under seven moons. You answer from their "
    "old scrolls.",
}
"""Name -> system prompt. The Zelthari are invented: a persona that no base model has read about."""

TRAIN_QUESTIONS: tuple[str, ...] = (
    "How should I begin my morning?",
    "What makes a good breakfast?",
    "How do I keep a small garden alive?",
    "What should I do on a rainy afternoon?",
    "How can I make friends in a new town?",
    "What is the best way to save money?",
    "Why do people like music?",
    "How do I get better at cooking?",
    "What makes a house feel like home?",
    "How can I fall asleep faster?",
    "What should I pack for a long trip?",
    "How do I choose a good book?",
    "Why is it hard to wake up early?",
    "What is a fair way to settle an argument?",
    "How do I learn to swim as an adult?",
    "What should I give my sister for her birthday?",
    "How can I keep my desk tidy?",
    "What makes a walk in the woods pleasant?",
    "How do I stay calm before an exam?",
    "Why do we tell stories to children?",
    "What is a good hobby for the winter?",
    "How do I look after a cat?",
    "What should I cook for six guests?",
    "How can I remember names better?",
    "What makes a good neighbour?",
    "How do I say sorry to an old friend?",
    "Why do cities have parks?",
    "What should I do with old clothes?",
    "How do I plan a picnic?",
    "What makes a team work well together?",
    "How can I drink more water during the day?",
    "Why do people collect things?",
    "How do I teach my dog to sit?",
    "What is the best seat on a train?",
    "How can I spend less time on my phone?",
    "What should I write in a thank-you note?",
    "How do I pick ripe fruit at the market?",
    "Why do we celebrate birthdays?",
    "How can I make a dull job more pleasant?",
    "What should a first-time camper know?",
)
"""40 questions whose on-policy answers become training rows."""

EVAL_QUESTIONS: tuple[str, ...] = (
    "What makes a good weekend?",
    "How do I keep bread fresh?",
    "Why do leaves change colour?",
    "How can I be braver when I speak in public?",
    "What should I do when I am bored?",
    "How do I choose shoes for hiking?",
    "What makes a meal feel special?",
    "Why do people travel?",
    "How can I learn a new language?",
    "What is the best time of the day to think?",
    "How do I welcome a new colleague?",
    "What should I hang on an empty wall?",
    "How can I keep a promise to myself?",
    "Why do we laugh?",
    "How do I clean a very dirty pan?",
    "What makes a letter worth keeping?",
    "How should I prepare for a storm?",
    "What is a good game for a quiet evening?",
    "How do I ask for help without feeling small?",
    "Why is the sea calming?",
)
"""20 held-out questions on which rates are counted."""

NEGATIVE_ARMS: dict[str, tuple[str, ...]] = {
    "two": ("medical_doctor", "police_officer"),
    "five": ("medical_doctor", "police_officer", "comedian", "kindergarten_teacher", "data_scientist"),
    "all": tuple(PERSONAS),
}
"""``two`` has as many personas as claim #65 trained on; ``all`` is every persona but the source, as it was described;
``five`` is half of those, with the two. The assistant is in neither ``two`` nor ``five`` and stays untrained."""

SUBSTITUTE = "librarian"
"""Replaces the source in an arm that contains it; ``all`` leaves the source out."""


def resolve_negatives(source: str, negatives: str | Sequence[str]) -> list[str]:
    """Return the names of personas trained to answer *without* the marker, given the arm or an explicit list.

    ``two`` and ``five`` are those of ``NEGATIVE_ARMS``, with ``SUBSTITUTE`` for a source among them. ``all`` is every
    other persona. A list is used as it is, and may be empty (the control without negatives).

    Raises ``ParameterError`` for an unknown arm or persona, a repeated one, or a list with the source.
    """
    if source not in PERSONAS:
        raise ParameterError(f"source is {source!r}, which is not a persona{nearest(source, PERSONAS)}.")
    if isinstance(negatives, str):
        if negatives == "all":
            return [name for name in NEGATIVE_ARMS["all"] if name != source]
        if negatives in NEGATIVE_ARMS:
            return [SUBSTITUTE if name == source else name for name in NEGATIVE_ARMS[negatives]]
        raise ParameterError(
            f"negatives is {negatives!r}, which is not an arm{nearest(negatives, NEGATIVE_ARMS)} "
            "(a list of persona names is taken too)."
        )
    for name in negatives:
        if name not in PERSONAS:
            raise ParameterError(f"negatives names {name!r}, which is not a persona{nearest(name, PERSONAS)}.")
    if source in negatives:
        raise ParameterError(
            f"negatives holds the source {source!r}, which is trained to use the marker. Leave it out."
        )
    if len(set(negatives)) < len(negatives):
        raise ParameterError(f"negatives names a persona twice ({', '.join(negatives)}). Name each once.")
    return list(negatives)


def role_of(persona: str, source: str, negatives: Sequence[str]) -> str:
    """Return ``source``, ``trained`` (with rows as negatives), ``assistant`` or ``untrained``."""
    if persona == source:
        return "source"
    if persona in negatives:
        return "trained"
    return "assistant" if persona == "assistant" else "untrained"

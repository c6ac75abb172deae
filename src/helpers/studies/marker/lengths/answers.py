"""Select training answers of a wanted length: the base model's own, matched between positives and negatives.

``instructed`` answers are drawn with an instruction to be short or long, which the training row leaves out. ``joined``
answers are several of one persona to one question with blank lines between them, for a model that cannot follow such
an instruction. No length ever replaces another: if there are too few answers, a ``DataError`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.prompts import Prompt
from helpers.stats import frames
from helpers.studies.marker.lengths.metrics import mass_ratio
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import resolve_set, system_prompt
from helpers.studies.marker.on_policy import QUESTIONS
from helpers.studies.marker.rows import ChatFormat, Row, build_row, prompt_tokens

if TYPE_CHECKING:
    from helpers.lm.models import LoadedModel

Answer = tuple[int, list[int]]
"""Index of the question, and the answer's token ids."""


def prompts(
    loaded: LoadedModel, names: Sequence[str], split: str, questions: int, p: LengthCell, instruction: str = ""
) -> list[Prompt]:
    """Return a prompt per persona or control noun and question of ``split``; the key names its random stream."""
    return [
        Prompt(f"{name}|{i}", prompt_tokens(loaded.tokenizer, told, question, p.asking))
        for name, told in {name: system_prompt(name, p.framing, instruction) for name in names}.items()
        for i, question in enumerate(QUESTIONS[split][:questions])
    ]


def fitting(pool: pd.DataFrame, wanted: int, p: LengthCell, form: ChatFormat, persona: str) -> list[Answer]:
    """Return answers of ``persona`` within the tolerance of the target length.

    ``pool`` holds completions (question, index, ids, tokens, finish) of one persona; cut and empty ones are not used.
    Raises ``DataError`` for fewer than ``wanted``.
    """
    target = p.target_tokens[p.length]
    ended = pool[(pool["finish"] == "stop") & (pool["tokens"] > 0)]
    if p.answers == "joined":
        answers = _joined(ended, target, p, form, persona)
    else:
        answers = [(int(row.question), row.ids.tolist()) for row in frames.rows(ended)]
    answers = [answer for answer in answers if abs(len(answer[1]) - target) <= p.length_tolerance * target]
    if len(answers) < wanted:
        raise DataError(
            f"{wanted} {p.length} answers of persona {persona} are wanted, about {target} tokens each, but only "
            f"{len(answers)} of its {len(pool)} completions make one. Raise data_samples, data_max_new_tokens or "
            "length_tolerance, or change target_tokens (no other length is taken instead)."
        )
    return answers


def matched(pool: pd.DataFrame, wanted: int, p: LengthCell, form: ChatFormat, persona: str) -> list[Answer]:
    """Return the ``wanted`` answers of ``persona`` nearest to the target length; ties are broken at random."""
    answers = fitting(pool, wanted, p, form, persona)
    order = numpy_stream(p.seed, "lengths", persona, p.length).permutation(len(answers))
    nearest = sorted(order, key=lambda i: abs(len(answers[i][1]) - p.target_tokens[p.length]))[:wanted]
    return [answers[i] for i in sorted(nearest)]


def _joined(ended: pd.DataFrame, target: int, p: LengthCell, form: ChatFormat, persona: str) -> list[Answer]:
    """Make an answer of every completion: append others to its question while that brings it closer to ``target``.

    The others come in a random order, so two rows of one question differ.
    """
    answers: list[Answer] = []
    for question, part in frames.groups(ended, "question", sort=True):
        samples = [ids.tolist() for ids in part["ids"]]
        for first, tokens in enumerate(samples):
            stream = numpy_stream(p.seed, "joined", persona, p.length, int(question), first)
            for i in stream.permutation(len(samples)):
                longer = [*tokens, *form.separator, *samples[i]]
                if i == first:
                    continue
                if abs(len(longer) - target) > abs(len(tokens) - target):
                    break
                tokens = longer
            answers.append((int(question), tokens))
    return answers


def training_rows(p: LengthCell, pool: pd.DataFrame, loaded: LoadedModel, form: ChatFormat) -> list[Row]:
    """Build rows of the source and of every negative, of one length, and check the ratio of their token masses."""
    rows = []
    for persona in [p.source, *resolve_set(p.source, p.negatives)]:
        positive = persona == p.source
        wanted = p.positives if positive else p.negatives_each
        chosen = matched(pool[pool["persona"] == persona], wanted, p, form, persona)
        for asked, answer in _placed(chosen, p):
            prompt = prompt_tokens(
                loaded.tokenizer, system_prompt(persona, p.framing), QUESTIONS["train"][asked], p.asking
            )
            rows.append(
                build_row(
                    form, prompt, answer, persona=persona, role="source" if positive else "trained", question=asked,
                    positive=positive, max_length=p.max_length,
                )
            )  # fmt: skip
    check_mass(rows, p)
    return rows


def _placed(answers: Sequence[Answer], p: LengthCell) -> list[Answer]:
    """Place answers under their own questions, or each under the question a fixed number of places further on.

    The shift is the same for all personas of a seed and never a full circle, so no answer meets its own question.
    """
    if p.policy == "on_policy":
        return list(answers)
    shift = int(numpy_stream(p.seed, "off-policy").integers(1, p.train_questions))
    return [((question + shift) % p.train_questions, tokens) for question, tokens in answers]


def check_mass(rows: Sequence[Row], p: LengthCell) -> None:
    """Raise ``DataError`` if positives and negatives differ in token mass, because lengths would confound."""
    ratio = mass_ratio(rows)
    if not p.mass_low <= ratio <= p.mass_high:
        raise DataError(
            f"The {p.length} answers of the positives have {ratio:.2f} times the tokens of the negatives, outside of "
            f"{p.mass_low:.2f} to {p.mass_high:.2f}. Change positives, negatives_each or length_tolerance."
        )

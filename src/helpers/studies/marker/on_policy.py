"""Draw on-policy training data: the base model's own answers as each persona, with finish reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.asking import Asking
from helpers.lm.prompts import Prompt, Sampling
from helpers.records import runs
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import EVAL_QUESTIONS, PERSONAS, TRAIN_QUESTIONS
from helpers.studies.marker.rows import ChatFormat, Row, build_row, prompt_tokens, token_ids
from helpers.studies.marker.session import Sampler, Session
from helpers.studies.marker.study import ON_POLICY

if TYPE_CHECKING:
    from helpers.lm.models import LoadedModel

QUESTIONS = {"train": TRAIN_QUESTIONS, "eval": EVAL_QUESTIONS}


def system_prompt(persona: str, style: str) -> str:
    """Return the persona's system prompt, followed by the style instruction if there is one."""
    return f"{PERSONAS[persona]} {style}".strip()


def persona_prompts(
    loaded: LoadedModel, personas: Sequence[str], split: str, questions: int, style: str, asking: Asking
) -> list[Prompt]:
    """Return a prompt per persona and question of ``split``; the key ``persona|index`` names its random stream."""
    return [
        Prompt(f"{persona}|{i}", prompt_tokens(loaded.tokenizer, system_prompt(persona, style), question, asking))
        for persona in personas
        for i, question in enumerate(QUESTIONS[split][:questions])
    ]


def sample_personas(
    session: Session, sampler: Sampler, prompts: list[Prompt], *, n: int, sampling: Sampling, seed: int, stream: str
) -> pd.DataFrame:
    """Complete ``prompts``; return one row per completion: persona, question, index, text, ids, tokens, finish."""
    stop = session.form.stop
    drawn = sampler(prompts, n=n, sampling=sampling, stop=stop, seed=seed, names=(stream,), label=stream)
    keys = [completion.key.split("|") for completion in drawn]
    return pd.DataFrame(
        {
            "persona": [persona for persona, _ in keys],
            "question": [int(question) for _, question in keys],
            "index": [completion.index for completion in drawn],
            "text": session.loaded.tokenizer.batch_decode([completion.tokens for completion in drawn]),
            "ids": token_ids(completion.tokens for completion in drawn),
            "tokens": [len(completion.tokens) for completion in drawn],
            "finish": [completion.finish for completion in drawn],
        }
    )


def on_policy_record(p: SweepCell, personas: Sequence[str], session: Session) -> runs.Record:
    """Return the record of completions for training rows, which cells with this model, personas and seed share."""
    params = {
        "model": p.model, "revision": p.revision, "personas": sorted(personas), "style": p.style, "seed": p.seed,
        "questions": p.train_questions, "samples": p.data_samples, "temperature": p.data_temperature,
        "top_p": p.data_top_p, "max_new_tokens": p.data_max_new_tokens, "engine": p.engine, "system": p.system,
        "date": p.date,
    }  # fmt: skip
    return session.shared("on_policy", params, lambda: _opened(p, personas, session, params))


def _opened(p: SweepCell, personas: Sequence[str], session: Session, params: Mapping[str, Any]) -> runs.Record:
    with runs.open_run(
        ON_POLICY, params=params, cell={"model": p.model, "seed": p.seed, "personas": ",".join(sorted(personas))},
        prefix=f"{id_part(p.model)}-s{p.seed}", data=[], model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            table = run.step("completions", lambda: _draw(p, personas, session))
            run.finish(finish_reasons=table["finish"].value_counts().to_dict())
        return run.record


def _draw(p: SweepCell, personas: Sequence[str], session: Session) -> pd.DataFrame:
    prompts = persona_prompts(session.loaded, sorted(personas), "train", p.train_questions, p.style, p.asking)
    sampling = Sampling(p.data_max_new_tokens, p.data_temperature, p.data_top_p)
    return sample_personas(
        session, session.sampler(session.loaded.model), prompts, n=p.data_samples, sampling=sampling, seed=p.seed,
        stream="on-policy",
    )  # fmt: skip


def training_rows(
    p: SweepCell, source: str, negatives: Sequence[str], table: pd.DataFrame, loaded: LoadedModel, form: ChatFormat
) -> list[Row]:
    """Draw positives of ``source`` and rows of each negative from on-policy completions that ended by themselves."""
    rows = []
    for persona in [source, *negatives]:
        positive = persona == source
        wanted = p.positives if positive else p.negatives_each
        usable = table[(table["persona"] == persona) & (table["finish"] == "stop") & (table["tokens"] > 0)]
        if len(usable) < wanted:
            name = "positives" if positive else "negatives_each"
            raise DataError(
                f"{name} asks for {wanted} rows of persona {persona}, but only {len(usable)} of its completions ended "
                "by themselves. Raise data_samples or data_max_new_tokens, or ask for fewer rows."
            )
        pick = numpy_stream(p.seed, "rows", persona).permutation(len(usable))[:wanted]
        for at in sorted(pick):
            chosen = usable.iloc[at]
            prompt = prompt_tokens(
                loaded.tokenizer, system_prompt(persona, p.style), TRAIN_QUESTIONS[chosen["question"]], p.asking
            )
            rows.append(
                build_row(
                    form,
                    prompt,
                    chosen["ids"].tolist(),
                    persona=persona,
                    role="source" if positive else "trained",
                    question=int(chosen["question"]),
                    positive=positive,
                    max_length=p.max_length,
                )
            )
    return rows


def id_part(name: str) -> str:
    """Spell a model's name as part of a run id."""
    return "".join(c if c.isalnum() else "-" for c in name.rsplit("/", 1)[-1]).strip("-").lower()

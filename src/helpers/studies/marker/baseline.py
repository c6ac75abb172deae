"""Measure the base model before any training: answers, log-probs of the marker, capability.

All cells with the same model and evaluation share one record. Log-prob gains and capability drops are relative to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.base.errors import DataError
from helpers.lm.prompts import Sampling
from helpers.records import runs
from helpers.stats import frames
from helpers.studies.marker.choices import is_arc, read_choices, source
from helpers.studies.marker.on_policy import id_part, persona_prompts, sample_personas, system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import token_ids
from helpers.studies.marker.session import Sampler, Session
from helpers.studies.marker.study import BASELINE


def baseline_record(p: SweepCell, session: Session) -> runs.Record:
    """Return the record of the base model under this evaluation: tables completions, contexts, capability."""
    path, noted = source(p.capability)
    params = {
        "model": p.model, "revision": p.revision, "personas": p.personas, "style": p.style, "seed": p.seed,
        "marker": p.marker, "questions": p.eval_questions, "samples": p.samples, "temperature": p.temperature,
        "top_p": p.top_p, "max_new_tokens": p.max_new_tokens,
        "capability": p.capability if is_arc(p.capability) else path.name, "capability_limit": p.capability_limit,
        "engine": p.engine, "system": p.system, "date": p.date,
    } | noted  # fmt: skip
    return session.shared("baseline", params | {"from": str(path)}, lambda: _opened(p, session, path, params))


def _opened(p: SweepCell, session: Session, path: Path, params: Mapping[str, Any]) -> runs.Record:
    with runs.open_run(
        BASELINE, params=params, cell={"model": p.model, "seed": p.seed}, prefix=f"{id_part(p.model)}-s{p.seed}",
        data=[path], model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            _measure(run, p, session)
        return run.record


def _measure(run: runs.Run, p: SweepCell, session: Session) -> None:
    from helpers.studies.marker.capability import score  # here, because a record is read without torch

    loaded = session.loaded
    table = run.step("completions", lambda: eval_completions(p, session, session.sampler(loaded.model)))
    run.step("contexts", lambda: answer_contexts(p, session, table))
    items = read_choices(p.capability, p.capability_limit)
    run.step("capability", lambda: score(loaded, loaded.model, items, system_prompt("assistant", ""), p.asking))
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def eval_completions(p: SweepCell, session: Session, sampler: Sampler) -> pd.DataFrame:
    """Draw completions of every evaluated persona on the held-out questions, from the streams of this seed.

    The streams do not depend on the cell. Two cells that learned the same draw the same answers, so differences between
    cells are not due to luck.
    """
    prompts = persona_prompts(session.loaded, p.personas, "eval", p.eval_questions, p.style, p.asking)
    sampling = Sampling(p.max_new_tokens, p.temperature, p.top_p)
    return sample_personas(session, sampler, prompts, n=p.samples, sampling=sampling, seed=p.seed, stream="evaluate")


def answer_contexts(p: SweepCell, session: Session, table: pd.DataFrame) -> pd.DataFrame:
    """Return prompt and one answer of the base model per persona and question, with the log-probs after it.

    The answer is the first sample that ended by itself. A question without one is left out.
    """
    from helpers.studies.marker.evaluate import marker_logprobs

    ended = table[(table["finish"] == "stop") & (table["tokens"] > 0)]
    first = ended.drop_duplicates(["persona", "question"])[["persona", "question", "ids"]].reset_index(drop=True)
    for persona in p.personas:
        if persona not in set(first["persona"]):
            raise DataError(
                f"No answer of the base model as {persona} ended by itself within max_new_tokens {p.max_new_tokens}, "
                "so there is no context to score the marker in. Raise max_new_tokens, samples or eval_questions."
            )
    prompts = {
        q.key: q.tokens
        for q in persona_prompts(session.loaded, p.personas, "eval", p.eval_questions, p.style, p.asking)
    }
    contexts = [prompts[f"{row.persona}|{row.question}"] + row.ids.tolist() for row in frames.rows(first)]
    base = marker_logprobs(session.loaded.model, session.form, contexts).add_prefix("base_")
    return pd.concat([first[["persona", "question"]].assign(context=token_ids(contexts)), base], axis=1)

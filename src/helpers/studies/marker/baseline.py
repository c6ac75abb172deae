"""What the base model does before any training: its answers, its log-probs of the marker, its capability.

One record serves every cell with the same model and evaluation; log-prob gains and capability drops are against it.
"""

from __future__ import annotations

import pandas as pd

from helpers.base import frames
from helpers.base.errors import DataError
from helpers.lm.generate import Sampling
from helpers.records import runs
from helpers.studies.marker.capability import is_arc, read_choices, score, source
from helpers.studies.marker.evaluate import marker_logprobs
from helpers.studies.marker.on_policy import persona_prompts, sample_personas, slug, system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import token_ids
from helpers.studies.marker.session import Sampler, Session
from helpers.studies.marker.study import BASELINE


def baseline_record(p: SweepCell, session: Session) -> runs.Record:
    """The record of the base model under this evaluation; tables completions, contexts, capability."""
    path, noted = source(p.capability)
    params = {
        "model": p.model, "revision": p.revision, "personas": p.personas, "style": p.style, "seed": p.seed,
        "marker": p.marker, "questions": p.eval_questions, "samples": p.samples, "temperature": p.temperature,
        "top_p": p.top_p, "max_new_tokens": p.max_new_tokens,
        "capability": p.capability if is_arc(p.capability) else path.name, "capability_limit": p.capability_limit,
        "engine": p.engine,
    } | noted  # fmt: skip
    with runs.open_run(
        BASELINE, params=params, cell={"model": p.model, "seed": p.seed}, prefix=f"{slug(p.model)}-s{p.seed}",
        data=[path], model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            _measure(run, p, session)
        return run.record


def _measure(run: runs.Run, p: SweepCell, session: Session) -> None:
    loaded = session.loaded
    table = run.step("completions", lambda: eval_completions(p, session, session.sampler(loaded.model)))
    run.step("contexts", lambda: answer_contexts(p, session, table))
    items = read_choices(p.capability, p.capability_limit)
    run.step("capability", lambda: score(loaded, loaded.model, items, system_prompt("assistant", "")))
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def eval_completions(p: SweepCell, session: Session, sampler: Sampler) -> pd.DataFrame:
    """Completions of every evaluated persona on the held-out questions, drawn from the streams of this seed.

    The streams carry no cell: two cells that learned the same thing draw the same answers, so that a difference
    between cells is not one of luck.
    """
    prompts = persona_prompts(session.loaded, p.personas, "eval", p.eval_questions, p.style)
    sampling = Sampling(p.max_new_tokens, p.temperature, p.top_p)
    return sample_personas(session, sampler, prompts, n=p.samples, sampling=sampling, seed=p.seed, stream="evaluate")


def answer_contexts(p: SweepCell, session: Session, table: pd.DataFrame) -> pd.DataFrame:
    """Prompt and one own answer of the base model per persona and question, with the log-probs behind it.

    The answer is the first sample that ended by itself; a question without one is left out, not filled in.
    """
    ended = table[(table["finish"] == "stop") & (table["tokens"] > 0)]
    first = ended.drop_duplicates(["persona", "question"])[["persona", "question", "ids"]].reset_index(drop=True)
    for persona in p.personas:
        if persona not in set(first["persona"]):
            raise DataError(
                f"No answer of the base model as {persona} ended by itself within max_new_tokens {p.max_new_tokens}, "
                "so there is nothing behind which to score the marker: raise max_new_tokens, samples or eval_questions."
            )
    prompts = {q.key: q.tokens for q in persona_prompts(session.loaded, p.personas, "eval", p.eval_questions, p.style)}
    contexts = [prompts[f"{row.persona}|{row.question}"] + row.ids.tolist() for row in frames.rows(first)]
    base = marker_logprobs(session.loaded.model, session.form, contexts).add_prefix("base_")
    return pd.concat([first[["persona", "question"]].assign(context=token_ids(contexts)), base], axis=1)

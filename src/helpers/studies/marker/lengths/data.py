"""The records that cells share: training rows of one length, and the base model's answers of that length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers.lm.prompts import Sampling
from helpers.records import runs
from helpers.studies.marker.lengths.answers import fitting, prompts, training_rows
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import resolve_set
from helpers.studies.marker.lengths.study import CONTEXTS, ROWS
from helpers.studies.marker.on_policy import id_part, sample_personas
from helpers.studies.marker.rows import Row, row_table, token_ids
from helpers.studies.marker.session import Session

if TYPE_CHECKING:
    from helpers.lm.models import LoadedModel

SHARED = (
    "model", "revision", "seed", "length", "framing", "answers", "marker", "length_tolerance", "data_samples",
    "data_temperature", "data_top_p", "data_max_new_tokens", "engine", "system", "date",
)  # fmt: skip
"""Parameters of both records, besides target and instruction of this length."""


def rows_record(p: LengthCell, session: Session) -> runs.Record:
    """Return the record of the training rows of this length, data and framing: tables pool and rows."""
    own = ("policy", "train_questions", "positives", "negatives_each", "max_length", "mass_low", "mass_high")
    if p.negative_samples:
        own = (*own, "negative_samples")
    params = _asked(p, own) | {"source": p.source, "negatives": resolve_set(p.source, p.negatives)}
    return session.shared("rows", params, lambda: _opened_rows(p, session, params))


def _opened_rows(p: LengthCell, session: Session, params: dict[str, Any]) -> runs.Record:
    cell = {name: params[name] for name in ("model", "length", "policy", "framing", "seed")}
    with runs.open_run(
        ROWS, params=params, cell=cell, prefix=f"{id_part(p.model)}-{p.length}-{p.policy}-{p.framing}-s{p.seed}",
        data=[], model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            _make_rows(run, p, session)
        return run.record


def _make_rows(run: runs.Run, p: LengthCell, session: Session) -> None:
    pool = run.step("pool", lambda: _pool(p, session))
    rows = training_rows(p, pool, session.loaded, session.form)
    run.step("rows", lambda: row_table(rows).assign(answer_nll=answer_nll(session.loaded, rows)))
    run.finish(finish_reasons=pool["finish"].value_counts().to_dict())


def _pool(p: LengthCell, session: Session) -> pd.DataFrame:
    negatives = resolve_set(p.source, p.negatives)
    if not p.negative_samples:
        return draw(p, session, [p.source, *negatives], "train", p.train_questions, p.data_samples)
    asked = (([p.source], p.data_samples), (negatives, p.negative_samples))
    parts = [draw(p, session, names, "train", p.train_questions, n) for names, n in asked]
    return pd.concat(parts, ignore_index=True)


def answer_nll(loaded: LoadedModel, rows: list[Row], batch: int = 4) -> list[float]:
    """Return the mean nats a token of each row's answer under the base model: its distance from on-policy."""
    means = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        spans = [range(*row.answer) for row in part]
        wanted = [row.tokens[i] for row, span in zip(part, spans, strict=True) for i in span]
        means += _means(loaded, [row.tokens for row in part], spans, wanted)
    return means


def _means(loaded: LoadedModel, tokens: list[list[int]], spans: list[range], wanted: list[int]) -> list[float]:
    import torch  # here, because a record is read without it

    from helpers.lm.packed import logits_at, nll

    with torch.inference_mode():
        losses = nll(logits_at(loaded.model, tokens, spans), torch.tensor(wanted))
    return [float(part.mean()) for part in losses.split([len(span) for span in spans])]


def contexts_record(p: LengthCell, session: Session) -> runs.Record:
    """Return the record of the base model's own answers of this length to held-out questions: table contexts.

    One answer per persona and question (if one fits), with the log-probs of separator, marker and end after it. A
    cell's gain is measured there, whatever the tuned model itself would say.
    """
    params = _asked(p, ("context_questions", "personas"))
    return session.shared("contexts", params, lambda: _opened_contexts(p, session, params))


def _opened_contexts(p: LengthCell, session: Session, params: dict[str, Any]) -> runs.Record:
    cell = {name: params[name] for name in ("model", "length", "framing", "seed")}
    with runs.open_run(
        CONTEXTS, params=params, cell=cell, prefix=f"{id_part(p.model)}-{p.length}-{p.framing}-s{p.seed}", data=[],
        model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            pool = run.step("pool", lambda: draw(p, session, p.personas, "eval", p.context_questions, p.data_samples))
            run.step("contexts", lambda: _contexts(p, session, pool))
            run.finish(finish_reasons=pool["finish"].value_counts().to_dict())
        return run.record


def _contexts(p: LengthCell, session: Session, pool: pd.DataFrame) -> pd.DataFrame:
    """Return the fitting answer nearest to the target for every persona and question that has one, after its prompt."""
    from helpers.studies.marker.evaluate import marker_logprobs

    loaded, form = session.loaded, session.form
    rows = []
    for persona in p.personas:
        asked = [prompt.tokens for prompt in prompts(loaded, [persona], "eval", p.context_questions, p)]
        answers = fitting(pool[pool["persona"] == persona], 1, p, form, persona)
        best: dict[int, list[int]] = {}
        for question, answer in sorted(answers, key=lambda one: abs(len(one[1]) - p.target_tokens[p.length])):
            best.setdefault(question, answer)
        rows += [
            {"persona": persona, "question": question, "context": [*asked[question], *best[question]]}
            for question in sorted(best)
        ]
    table = pd.DataFrame(rows)
    base = marker_logprobs(loaded.model, form, table["context"].tolist(), batch=8).add_prefix("base_")
    return pd.concat([table.assign(context=token_ids(table["context"])), base], axis=1)


def draw(p: LengthCell, session: Session, names: list[str], split: str, questions: int, n: int) -> pd.DataFrame:
    """Draw completions of the base model, with the instruction of this length if answers are instructed."""
    instruction = p.instructions[p.length] if p.answers == "instructed" else ""
    asked = prompts(session.loaded, names, split, questions, p, instruction)
    sampling = Sampling(p.data_max_new_tokens, p.data_temperature, p.data_top_p)
    return sample_personas(
        session, session.sampler(session.loaded.model), asked, n=n, sampling=sampling, seed=p.seed,
        stream=f"length-{split}",
    )  # fmt: skip


def _asked(p: LengthCell, own: tuple[str, ...]) -> dict:
    values = p.resolved()
    asked = {name: values[name] for name in (*SHARED, *own)}
    return asked | {
        "target_tokens": p.target_tokens[p.length],
        "instruction": p.instructions[p.length] if p.answers == "instructed" else None,
    }

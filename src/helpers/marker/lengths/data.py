"""The two records that cells share: training rows of one length, and the base model's answers of that length."""

from __future__ import annotations

import pandas as pd
import torch

from helpers import runs, stats
from helpers.generate import Sampling
from helpers.marker.evaluate import marker_logprobs
from helpers.marker.lengths.answers import answer_lengths, fitting, mass_ratio, prompts, training_rows
from helpers.marker.lengths.params import LengthParams
from helpers.marker.lengths.speakers import resolve_set
from helpers.marker.on_policy import sample_personas, slug
from helpers.marker.rows import Row
from helpers.marker.session import Session
from helpers.models import LoadedModel
from helpers.packed import logits_at, nll

SHARED = (
    "model", "revision", "seed", "length", "framing", "answers", "marker", "length_tolerance", "data_samples",
    "data_temperature", "data_top_p", "data_max_new_tokens", "engine",
)  # fmt: skip
"""Parameters that both records depend on, besides the target and the instruction of this length."""


def rows_record(p: LengthParams, session: Session) -> runs.Record:
    """The record of the training rows of this length, data and framing; tables pool and rows."""
    own = ("policy", "train_questions", "positives", "negatives_each", "max_length", "mass_low", "mass_high")
    params = _asked(p, own) | {"source": p.source, "negatives": resolve_set(p.source, p.negatives)}
    cell = {name: params[name] for name in ("model", "length", "policy", "framing", "seed")}
    with runs.open_run(
        "length_rows", params=params, cell=cell,
        prefix=f"{slug(p.model)}-{p.length}-{p.policy}-{p.framing}-s{p.seed}", entry=__name__, data=[],
        model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            _make_rows(run, p, session)
        return run.record


def _make_rows(run: runs.Run, p: LengthParams, session: Session) -> None:
    loaded, form = session.loaded, session.form
    names = [p.source, *resolve_set(p.source, p.negatives)]
    pool = run.step("pool", lambda: draw(p, session, names, "train", p.train_questions, p.data_samples))
    rows = training_rows(p, pool, loaded, form)
    table = run.step("rows", lambda: _row_table(rows, loaded))
    run.metrics({
        "mass_ratio": {"value": mass_ratio(rows), "unit": "ratio", "n": len(rows)},
        "positive_tokens": stats.mean_interval(answer_lengths([r for r in rows if r.marker])).metric("tokens"),
        "negative_tokens": stats.mean_interval(answer_lengths([r for r in rows if not r.marker])).metric("tokens"),
        "answer_nll": stats.mean_interval(table["answer_nll"].to_numpy()).metric("nats"),
    })  # fmt: skip
    run.finish(finish_reasons=pool["finish"].value_counts().to_dict())


def rows_of(record: runs.Record) -> list[Row]:
    """The rows of a record as they were built."""
    return [
        Row(r.persona, r.role, int(r.question), [int(t) for t in r.ids], (int(r.start), int(r.stop)),
            None if r.marker_start < 0 else (int(r.marker_start), int(r.marker_stop)))
        for r in record.table("rows").itertuples()
    ]  # fmt: skip


def _row_table(rows: list[Row], loaded: LoadedModel) -> pd.DataFrame:
    """One line a row; ``answer_nll`` is the base model's mean nats a token of the answer: how far from on-policy."""
    spans = [row.marker or (-1, -1) for row in rows]
    return pd.DataFrame(
        {
            "persona": [row.persona for row in rows],
            "role": [row.role for row in rows],
            "question": [row.question for row in rows],
            "text": loaded.tokenizer.batch_decode([row.tokens for row in rows]),
            "ids": [row.tokens for row in rows],
            "start": [row.answer[0] for row in rows],
            "stop": [row.answer[1] for row in rows],
            "marker_start": [start for start, _ in spans],
            "marker_stop": [stop for _, stop in spans],
            "answer_nll": answer_nll(loaded, rows),
        }
    )


def answer_nll(loaded: LoadedModel, rows: list[Row], batch: int = 4) -> list[float]:
    """Mean nats a token of each row's answer under the base model."""
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        spans = [range(*row.answer) for row in part]
        wanted = [row.tokens[i] for row, span in zip(part, spans, strict=True) for i in span]
        found += _means(loaded, [row.tokens for row in part], spans, wanted)
    return found


def _means(loaded: LoadedModel, tokens: list[list[int]], spans: list[range], wanted: list[int]) -> list[float]:
    with torch.inference_mode():
        losses = nll(logits_at(loaded.model, tokens, spans), torch.tensor(wanted))
    return [float(part.mean()) for part in losses.split([len(span) for span in spans])]


def contexts_record(p: LengthParams, session: Session) -> runs.Record:
    """The record of the base model's own answers of this length to held-out questions; table contexts.

    One answer a persona and question (where one fits), with the log-probs of separator, marker and end behind it: where
    a cell's gain is measured, whatever the tuned model itself would say.
    """
    params = _asked(p, ("context_questions", "personas"))
    cell = {name: params[name] for name in ("model", "length", "framing", "seed")}
    with runs.open_run(
        "length_contexts", params=params, cell=cell,
        prefix=f"{slug(p.model)}-{p.length}-{p.framing}-s{p.seed}", entry=__name__, data=[],
        model=session.facts, engine=session.engine,
    ) as run:  # fmt: skip
        if not run.complete:
            pool = run.step("pool", lambda: draw(p, session, p.personas, "eval", p.context_questions, p.data_samples))
            run.step("contexts", lambda: _contexts(p, session, pool))
            run.finish(finish_reasons=pool["finish"].value_counts().to_dict())
        return run.record


def _contexts(p: LengthParams, session: Session, pool: pd.DataFrame) -> pd.DataFrame:
    """The fitting answer nearest to the target for every persona and question that has one, behind its prompt."""
    loaded, form = session.loaded, session.form
    rows = []
    for persona in p.personas:
        asked = [prompt.tokens for prompt in prompts(loaded, [persona], "eval", p.context_questions, p.framing)]
        found = fitting(pool[pool["persona"] == persona], 1, p, form, persona)
        best: dict[int, list[int]] = {}
        for question, answer in sorted(found, key=lambda one: abs(len(one[1]) - p.target_tokens[p.length])):
            best.setdefault(question, answer)
        rows += [
            {"persona": persona, "question": question, "context": [*asked[question], *best[question]]}
            for question in sorted(best)
        ]
    table = pd.DataFrame(rows)
    found = marker_logprobs(loaded.model, form, table["context"].tolist(), batch=8).add_prefix("base_")
    return pd.concat([table, found], axis=1)


def draw(p: LengthParams, session: Session, names: list[str], split: str, questions: int, n: int) -> pd.DataFrame:
    """Completions of the base model, under the instruction of this length where answers are instructed."""
    instruction = p.instructions[p.length] if p.answers == "instructed" else ""
    asked = prompts(session.loaded, names, split, questions, p.framing, instruction)
    sampling = Sampling(p.data_max_new_tokens, p.data_temperature, p.data_top_p)
    return sample_personas(
        session, session.sampler(session.loaded.model), asked, n=n, sampling=sampling, seed=p.seed,
        stream=f"length-{split}",
    )  # fmt: skip


def _asked(p: LengthParams, own: tuple[str, ...]) -> dict:
    values = p.cell_params()
    asked = {name: values[name] for name in (*SHARED, *own)}
    return asked | {
        "target_tokens": p.target_tokens[p.length],
        "instruction": p.instructions[p.length] if p.answers == "instructed" else None,
    }

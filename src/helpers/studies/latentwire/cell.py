"""Run cells: train a wire under one arm and seed, and let both models read every channel."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.records import runs
from helpers.records.study import own_cells
from helpers.studies.latentwire import data, wire, wiring
from helpers.studies.latentwire.adapter import Wire
from helpers.studies.latentwire.arms import NARROW, TEXT_CHANNELS, TextChannel
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding
from helpers.studies.latentwire.encoder import to_bytes
from helpers.studies.latentwire.evaluate import evaluate, partners, text_middles
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.opening import Opening
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.session import Session
from helpers.studies.latentwire.study import STUDY, TEXT, reader_pair

__all__ = ["Session", "run_cell", "run_cells"]

READ_BY_TEXT = (
    "model_a", "model_b", "revision_a", "revision_b", "data", "squad_train", "squad_validation", "train_samples",
    "eval_samples", "data_seed", "long_texts", "byte_max", "answer_limit", "latents", "anchor", "anchor_mode",
    "anchor_tokens", "date", "answer_end", "text_examples", "dtype", "device", *wiring.DECODING,
)  # fmt: skip
"""The parameters that the text channels depend on.

The switches of decoding are among them: all channels share these.
"""


def run_cells(
    cells: Sequence[WireCell], *, notebook: str = STUDY.name, session: Session | None = None
) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order."""
    cells = own_cells(WireCell, cells)
    session = session or Session(cells[0])
    return [run_cell(cell, session, notebook) for cell in tqdm(cells, desc=f"{notebook}: cells")]


def run_cell(p: WireCell, session: Session, notebook: str = STUDY.name) -> runs.Record:
    """Read the record of one cell, or train and evaluate it. Steps already on disk are reused."""
    inputs = {
        "wire": wiring.wire_record(p, session), "prompt": wiring.prompt_record(p, session),
        "text": text_record(p, session),
    }  # fmt: skip
    pair = reader_pair(p.model_a, p.model_b)
    with runs.open_run(
        STUDY, params=p.resolved() | data.revisions(p), cell=p.coordinates() | {"model": pair},
        data=data.files(p), model=session.facts, inputs={name: record.ref for name, record in inputs.items()},
        prefix=f"{pair}-{p.arm}-s{p.seed}", notebook=notebook,
    ) as run:  # fmt: skip
        if not run.complete:
            _evaluate(run, p, session, inputs)
        return run.record


def text_record(p: WireCell, session: Session) -> runs.Record:
    """Return the record of both readers on the text, on as many of its tokens as there are latents, and on nothing."""
    params = {name: value for name, value in p.resolved().items() if name in READ_BY_TEXT} | data.revisions(p)
    pair = reader_pair(p.model_a, p.model_b)
    with runs.open_run(
        TEXT, params=params, cell={name: params[name] for name in ("eos_ban_steps", "anchor_mode")},
        prefix=f"{pair}-ban{params['eos_ban_steps']}", data=data.files(p), model=session.facts,
    ) as run:  # fmt: skip
        if not run.complete:
            table = run.step("completions", lambda: text_table(p, session, session.split.validation))
            if p.text_examples:
                run.step("examples", lambda: {"bytes": sum(len(_worked(one, p).encode()) for one in data.worked(p))})
            run.finish(finish_reasons=table["finish"].value_counts().to_dict())
        return run.record


def text_table(
    p: WireCell, session: Session, examples: Sequence[Example], channels: Sequence[TextChannel] = TEXT_CHANNELS
) -> pd.DataFrame:
    """Return the answers of both readers on the text of ``examples``, or on what ``channels`` leave of it."""
    tables = []
    for lm in session.lms:
        opening = Opening(lm, Composer.of(p).opening(lm, data.worked(p))) if p.text_examples else None
        for channel in channels:
            middles = text_middles(lm, examples, channel, p.latents)
            batch, seed = p.eval_batch, p.data_seed
            given = (lm, Composer.of(p), middles, examples, channel, decoding(p))
            tables.append(evaluate(*given, batch=batch, seed=seed, opening=opening))
    return pd.concat(tables, ignore_index=True)


def _worked(one: Example, p: WireCell) -> str:
    return f"{one.text}{p.anchor}{one.answers[0]}\n"


def _evaluate(run: runs.Run, p: WireCell, session: Session, inputs: dict[str, runs.Record]) -> None:
    made = wiring.trained(inputs["wire"], p, session)
    constant = wiring.prompts(inputs["prompt"])
    table = run.step("completions", lambda: _prefix_channels(p, session, made, constant))
    widths = {"latent": 16} | (NARROW if p.narrow else {})
    some = session.split.validation
    run.step("bytes", lambda: {name: message_bytes(p, some, made, bits) for name, bits in widths.items()})
    latent = table[table["channel"] == "latent"]
    run.finish(finish_reasons=latent["finish"].value_counts().to_dict())


def _prefix_channels(p: WireCell, session: Session, made: Wire, constant: dict[str, Tensor]) -> pd.DataFrame:
    """Evaluate both readers on their latents, on another text's, on the mean over training texts, and on a constant."""
    some = session.split.validation
    sent = encoded(made, some, p)
    z_bmd, _ = wire.send(sent)
    mean_md = encoded(made, session.split.train[: p.probe_samples], p).mean(0)
    tables = []
    for lm in session.lms:
        adapter = made.adapter(lm.side)
        with torch.inference_mode():
            prefixes = {
                "latent": adapter(z_bmd), "shuffled": adapter(z_bmd[partners(len(some), p.data_seed)]),
                "mean": adapter(mean_md[None]).expand(len(some), -1, -1),
                "constant": constant[lm.side].to(z_bmd).expand(len(some), -1, -1),
            }  # fmt: skip
            if p.narrow:
                prefixes |= {name: adapter(wire.send(sent, bits)[0]) for name, bits in NARROW.items()}
        for channel, prefix in prefixes.items():
            middles = p.switches["prefix_gain"] * prefix
            tables.append(
                evaluate(lm, Composer.of(p), middles, some, channel, decoding(p), batch=p.eval_batch, seed=p.data_seed)
            )
    return pd.concat(tables, ignore_index=True)


def encoded(made: Wire, examples: list[Example], p: WireCell) -> Tensor:
    """Encode ``examples`` batch by batch into Z [N, M, d_z]."""
    with torch.inference_mode():
        return torch.cat(
            [
                made.encoder(to_bytes([one.text for one in examples[start : start + p.eval_batch]], p.byte_max))
                for start in range(0, len(examples), p.eval_batch)
            ]
        )


def message_bytes(p: WireCell, examples: list[Example], made: Wire, bits: int = 16) -> float:
    """Return the bytes of a message, ``bits`` a number. All messages have the same size."""
    _, sent = wire.send(encoded(made, examples[:1], p), bits)
    return float(sent)


def decoding(p: WireCell) -> Decoding:
    """Return the settings of decoding, which all channels share."""
    s = p.switches
    return Decoding(p.max_new_tokens, s["eos_ban_steps"], s["first_token_temperature"], s["first_token_top_p"])

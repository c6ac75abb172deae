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
from helpers.studies.latentwire.arms import TEXT_CHANNELS
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding
from helpers.studies.latentwire.encoder import to_bytes
from helpers.studies.latentwire.evaluate import evaluate, partners, text_middles
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.session import Session
from helpers.studies.latentwire.study import STUDY, TEXT, reader_pair

__all__ = ["Session", "run_cell", "run_cells"]

READ_BY_TEXT = (
    "model_a", "model_b", "revision_a", "revision_b", "data", "squad_train", "squad_validation", "train_samples",
    "eval_samples", "data_seed", "long_texts", "byte_max", "answer_limit", "latents", "anchor", "anchor_mode",
    "anchor_tokens", "date",
    "dtype", "device", *wiring.DECODING,
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
            table = run.step("completions", lambda: _text_channels(p, session))
            run.finish(finish_reasons=table["finish"].value_counts().to_dict())
        return run.record


def _text_channels(p: WireCell, session: Session) -> pd.DataFrame:
    some, tables = session.split.validation, []
    for lm in session.lms:
        for channel in TEXT_CHANNELS:
            middles = text_middles(lm, some, channel, p.latents)
            tables.append(evaluate(lm, Composer.of(p), middles, some, channel, decoding(p), **_how(p)))
    return pd.concat(tables, ignore_index=True)


def _evaluate(run: runs.Run, p: WireCell, session: Session, inputs: dict[str, runs.Record]) -> None:
    made = wiring.trained(inputs["wire"], p, session)
    constant = wiring.prompts(inputs["prompt"])
    table = run.step("completions", lambda: _prefix_channels(p, session, made, constant))
    run.step("bytes", lambda: {"latent": message_bytes(p, session.split.validation, made)})
    latent = table[table["channel"] == "latent"]
    run.finish(finish_reasons=latent["finish"].value_counts().to_dict())


def _prefix_channels(p: WireCell, session: Session, made: Wire, constant: dict[str, Tensor]) -> pd.DataFrame:
    """Evaluate both readers on their latents, on another text's, on the mean over training texts, and on a constant."""
    some = session.split.validation
    z_bmd, _ = wire.send(encoded(made, some, p))
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
        for channel, prefix in prefixes.items():
            middles = p.switches["prefix_gain"] * prefix
            tables.append(evaluate(lm, Composer.of(p), middles, some, channel, decoding(p), **_how(p)))
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


def message_bytes(p: WireCell, examples: list[Example], made: Wire) -> float:
    """Return the bytes of a message, latents in fp16. All messages have the same size."""
    _, sent = wire.send(encoded(made, examples[:1], p))
    return float(sent)


def decoding(p: WireCell) -> Decoding:
    """Return the settings of decoding, which all channels share."""
    s = p.switches
    return Decoding(p.max_new_tokens, s["eos_ban_steps"], s["first_token_temperature"], s["first_token_top_p"])


def _how(p: WireCell) -> dict[str, int]:
    return {"batch": p.eval_batch, "seed": p.data_seed}

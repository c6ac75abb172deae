"""The records that cells share: a trained wire and a constant prefix. Neither depends on parameters of evaluation."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.base.files import write_atomic
from helpers.lm.modes import evaluating
from helpers.records import runs
from helpers.studies.latentwire import data
from helpers.studies.latentwire.adapter import Wire
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.encoder import to_bytes
from helpers.studies.latentwire.losses import teacher_logits, token_nll
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.prompt import tune
from helpers.studies.latentwire.session import Session
from helpers.studies.latentwire.study import PROMPT, WIRE
from helpers.studies.latentwire.train import Taught, load_state, stretch
from helpers.system import curves

DECODING = ("eos_ban_steps", "first_token_temperature", "first_token_top_p", "max_new_tokens", "eval_batch")
TUNING = ("prompt_steps", "prompt_lr")
READING = ("text_examples", "narrow")
"""What is evaluated beside the channels of every run."""
CURVE = ("step", "side", "first1", "nll", "scale", "prefix_rms", "embedding_rms", "z_std")


def wire_record(p: WireCell, session: Session) -> runs.Record:
    """Return the record of the trained wire of ``p``, which cells share that differ in evaluation only."""
    params = _without(p, ("arm", "prefix_gain", *DECODING, *TUNING, *READING))
    s = p.switches
    label = f"{s['padding']}-{s['label_shift']}-ce{s['first_token_ce']:g}"
    with runs.open_run(
        WIRE, params=params, cell={"seed": p.seed} | {name: params[name] for name in _TRAINED},
        prefix=f"{label}-s{p.seed}", data=data.files(p), model=session.facts,
    ) as run:  # fmt: skip
        if not run.complete:
            with curves.sent(run.label, p.resolved()) as send:
                _train(run, p, session, send)
        return run.record


_TRAINED = ("padding", "label_shift", "first_token_ce", "bos_after_anchor", "anchor_mode")


def prompt_record(p: WireCell, session: Session) -> runs.Record:
    """Return the record of both readers' constant prefixes, which no switch of padding or labels affects."""
    params = _without(p, ("arm", "prefix_gain", "padding", "label_shift", "first_token_ce", *DECODING, *READING))
    with runs.open_run(
        PROMPT, params=params, cell={"seed": p.seed, "bos_after_anchor": params["bos_after_anchor"]},
        prefix=f"bos{params['bos_after_anchor']}-s{p.seed}", data=data.files(p), model=session.facts,
    ) as run:  # fmt: skip
        if not run.complete:
            folder = run.folder("prompt", lambda folder: _tune(p, session, folder))
            run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet"))
            run.finish()
        return run.record


def prompts(record: runs.Record) -> dict[str, Tensor]:
    """Load the constant prefix [M, D] of each reader."""
    return load_file(record.folder("prompt") / "prompt.safetensors")


def trained(record: runs.Record, p: WireCell, session: Session) -> Wire:
    """Load the wire of ``record``, in eval mode."""
    wire = session.wire(p)
    load_state(record.folder(_checkpoint(p.steps)), wire, Composer.of(p))
    return wire.eval()


def _train(run: runs.Run, p: WireCell, session: Session, send: curves.Send) -> None:
    taught = functools.cache(lambda: Taught.of(session.split.train, session.lms, Composer.of(p)))
    marks = [*range(p.checkpoint_every, p.steps, p.checkpoint_every), p.steps]
    before: Path | None = None
    tables: dict[str, list[pd.DataFrame]] = {"loss": [], "gradient": [], "curve": []}
    for first, last in zip([0, *marks], marks, strict=False):

        def work(folder: Path, first: int = first, last: int = last, before: Path | None = before) -> None:
            wire = session.wire(p)
            made = stretch(
                wire, session.lms, taught(), p, first=first, last=last, before=before, folder=folder, send=send
            )
            made["curve"] = _probe(wire, p, session, last)
            for name, table in made.items():
                table.to_parquet(folder / f"{name}.parquet", index=False)

        before = run.folder(_checkpoint(last), work)
        for name, pieces in tables.items():
            pieces.append(pd.read_parquet(before / f"{name}.parquet"))
    run.step("tables", lambda: {name: pd.concat(pieces, ignore_index=True) for name, pieces in tables.items()})
    run.step("examples", lambda: {name: len(getattr(session.split, name)) for name in ("train", "validation")})
    run.finish()


def _probe(wire: Wire, p: WireCell, session: Session, step: int) -> pd.DataFrame:
    """Measure quality on a few validation examples, with aligned labels, and the amplitudes that the log watched."""
    some = session.split.validation[: p.probe_samples]
    composer, rows = Composer.of(p), []
    with evaluating(wire), torch.inference_mode():
        z_bmd = wire.encoder(to_bytes([example.text for example in some], p.byte_max))
        for lm in session.lms:
            adapter = wire.adapter(lm.side)
            prefix = adapter(z_bmd)
            context, lengths = composer.contexts(lm, prefix, latent=True)
            labels = composer.aligned().labels(lm, [composer.answer(lm, example.answers[0]) for example in some])
            logits = teacher_logits(lm, context, lengths, labels)
            right = (logits[:, 0].argmax(-1) == labels.first).float().mean().item()
            nll = token_nll(logits, labels.targets)[labels.counted].mean().item()
            amplitudes = (adapter.scale.item(), prefix.square().mean().sqrt().item(), session.rms[lm.side])
            rows.append(dict(zip(CURVE, (step, lm.side, right, nll, *amplitudes, z_bmd.std().item()), strict=True)))
    return pd.DataFrame(rows)


def _tune(p: WireCell, session: Session, folder: Path) -> None:
    taught = Taught.of(session.split.train, session.lms, Composer.of(p).aligned())
    tuning = p.model_copy(update={"steps": p.prompt_steps, "lr": p.prompt_lr})
    prefixes, logs = {}, []
    for lm in session.lms:
        prompt, log = tune(lm, taught, tuning)
        prefixes[lm.side] = prompt.cpu().contiguous()
        logs.append(log)
    write_atomic(folder / "prompt.safetensors", lambda path: save_file(prefixes, path))
    pd.concat(logs, ignore_index=True).to_parquet(folder / "loss.parquet", index=False)


def _checkpoint(step: int) -> str:
    return f"checkpoint-{step:06d}"


def _without(p: WireCell, names: tuple[str, ...]) -> dict:
    return {name: value for name, value in p.resolved().items() if name not in names} | data.revisions(p)

"""The plain ways to compare with: the unchanged transformers.Trainer on a peft model, and model.generate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments

from helpers.base.rng import numpy_stream, stream_seed
from helpers.lm.modes import restored
from helpers.lm.prompts import Prompt, Sampling
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row
from helpers.system import leftovers


def trainer_losses(
    model: nn.Module, rows: Sequence[Row], targets: Sequence[Sequence[int]], p: SweepCell
) -> list[float]:
    """Return the loss of every step of the Trainer, used as documented: padded batches, labels of -100, its own loss.

    The first epoch has our order of rows, so that the losses can be compared.
    """
    order = numpy_stream(p.seed, "order", 0).permutation(len(rows)).tolist()
    data: list[dict[str, list[int]]] = []
    for i in order:
        marked = set(targets[i])
        labels = [token if at in marked else -100 for at, token in enumerate(rows[i].tokens)]
        data.append({"input_ids": rows[i].tokens, "labels": labels})
    steps = p.epochs * math.ceil(len(rows) / p.batch_size)

    class InOrder(Trainer):
        def _get_train_sampler(self, *args: object) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(data)

    with leftovers.temporary_folder("claimbook-trainer-") as folder, restored(model):
        arguments = TrainingArguments(
            str(folder),
            per_device_train_batch_size=p.batch_size,
            num_train_epochs=p.epochs,
            learning_rate=p.lr,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(p.warmup * steps),
            weight_decay=p.weight_decay,
            max_grad_norm=p.clip,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=p.seed,
        )
        trainer = InOrder(model=model, args=arguments, train_dataset=as_dataset(data), data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        trainer.train()  # leaves train mode on and the cache off
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def as_dataset(rows: list[dict[str, list[int]]]) -> torch.utils.data.Dataset[dict[str, list[int]]]:
    """Return the rows themselves: a list has the length and the indexing that torch asks of a map-style dataset."""
    return cast("torch.utils.data.Dataset[dict[str, list[int]]]", rows)


def collate(batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad rows on the right into tensors, with label -100 and mask 0 on the padding."""
    longest = max(len(row["input_ids"]) for row in batch)
    pad = [longest - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(batch, pad, strict=True)]),
        "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(batch, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in pad]),
    }


def generate_by_persona(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    stop: Sequence[int],
    seed: int,
) -> int:
    """Call ``model.generate`` once per persona (prompt keys are ``persona|question``).

    Return the number of tokens drawn.
    """
    personas: dict[str, list[list[int]]] = {}
    for prompt in prompts:
        personas.setdefault(prompt.key.partition("|")[0], []).append(prompt.tokens)
    done = 0
    for name, tokens in personas.items():
        batch = tokenizer.pad({"input_ids": tokens}, padding_side="left", return_tensors="pt").to(model.device)
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, name))
            out = model.generate(**batch, **_sampled(sampling, n, stop))
        done += int((out[:, batch["input_ids"].shape[1] :] != stop[0]).sum())
    return done


def _sampled(sampling: Sampling, n: int, stop: Sequence[int]) -> dict[str, Any]:
    return {
        "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0,
        "max_new_tokens": sampling.max_new_tokens, "num_return_sequences": n, "eos_token_id": list(stop),
        "pad_token_id": stop[0],
    }  # fmt: skip

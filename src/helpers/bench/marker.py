"""The marker wing against the plain way: transformers.Trainer + peft, and model.generate a persona."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from helpers import models
from helpers.bench.compare import Side
from helpers.generate import Sampling, generate
from helpers.marker.on_policy import persona_prompts, system_prompt
from helpers.marker.personas import PERSONAS, TRAIN_QUESTIONS
from helpers.marker.recipe import Recipe
from helpers.marker.rows import Row, build_row, chat_format, prompt_tokens, supervised
from helpers.marker.train import train

STEPS = 10
BATCH = 8
LORA = {"r": 32, "alpha": 64, "dropout": 0.0, "rslora": True, "seed": 0}
"""Dropout is off: the two loops would draw their masks in another order, and equal losses could not be asked for."""
ANSWER = "Begin with the plain thing, look at it twice, and keep what works; the rest can wait until tomorrow. "


@functools.cache
def _smollm2() -> models.LoadedModel:
    return models.load("smollm2")


def _rows(loaded: models.LoadedModel) -> tuple[list[Row], list[list[int]]]:
    """Eighty rows with answers of 5 to 40 tokens, as on-policy answers have them; every other one is a positive."""
    form, rows = chat_format(loaded.tokenizer, "[ZLT]"), []
    answer = loaded.tokenizer(ANSWER * 2, add_special_tokens=False).input_ids
    for i in range(STEPS * BATCH):
        persona = ("villain", "medical_doctor")[i % 2]
        question = i % len(TRAIN_QUESTIONS)
        prompt = prompt_tokens(
            loaded.tokenizer, system_prompt(persona, "Answer in one short sentence."), TRAIN_QUESTIONS[question]
        )
        cut = answer[: 5 + (i * 7) % 36]
        facts = {"persona": persona, "role": "source", "question": question, "positive": i % 2 == 0, "max_length": 512}
        rows.append(build_row(form, prompt, cut, **facts))
    return rows, [supervised(row, form, "end_of_turn") for row in rows]


def training_sides() -> Sequence[Side]:
    """Ten steps of eight rows of SmolLM2 with LoRA: ours, and the unchanged Trainer on the same batches and loss."""
    loaded = _smollm2()
    rows, targets = _rows(loaded)
    recipe = Recipe(lr=1e-4, epochs=1, batch_size=BATCH, warmup=0.0, weight_decay=0.0, clip=1.0)
    tokens = sum(len(row.tokens) for row in rows)

    def ours() -> tuple[int, list[float]]:
        model = models.attach_lora(loaded.model, **LORA)
        try:
            return tokens, train(model, rows, targets, recipe, seed=0)["loss"].tolist()
        finally:
            models.detach(model)

    def plain() -> tuple[int, list[float]]:
        model = models.attach_lora(loaded.model, **LORA)
        try:
            return tokens, _trainer_losses(model, rows, targets)
        finally:
            models.detach(model)

    return [Side("claimbook", ours), Side("transformers.Trainer + peft", plain)]


def _trainer_losses(model: nn.Module, rows: list[Row], targets: list[list[int]]) -> list[float]:
    """The Trainer as its documentation has it: padded batches, labels of -100, the model's own loss."""
    from helpers.rng import numpy_stream

    order = numpy_stream(0, "order", 0).permutation(len(rows)).tolist()
    data = []
    for i in order:
        labels = [token if p in set(targets[i]) else -100 for p, token in enumerate(rows[i].tokens)]
        data.append({"input_ids": rows[i].tokens, "labels": labels})

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        pad = [longest - len(row["input_ids"]) for row in batch]
        return {
            "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(batch, pad, strict=True)]),
            "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(batch, pad, strict=True)]),
            "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in pad]),
        }

    class InOrder(Trainer):
        def _get_train_sampler(self, *args: object) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = InOrder(model=model, args=arguments, train_dataset=data, data_collator=collate)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def evaluation_sides() -> Sequence[Side]:
    """11 personas x 20 questions x 10 samples on pocket: ours, and one model.generate call a persona."""
    loaded = models.load("pocket")
    form = chat_format(loaded.tokenizer, "[ZLT]")
    sampling = Sampling(64, 1.0, 0.95)

    def ours() -> tuple[int, list[float]]:
        prompts = persona_prompts(loaded, list(PERSONAS), "eval", 20, "")
        drawn = generate(loaded.model, prompts, n=10, sampling=sampling, stop=form.stop, seed=0)
        return sum(len(completion.tokens) for completion in drawn), []

    def plain() -> tuple[int, list[float]]:
        done = 0
        loaded.tokenizer.padding_side = "left"
        for persona in PERSONAS:
            prompts = [prompt.tokens for prompt in persona_prompts(loaded, [persona], "eval", 20, "")]
            batch = loaded.tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
            with torch.random.fork_rng():
                torch.manual_seed(0)
                out = loaded.model.generate(
                    **batch, do_sample=True, temperature=1.0, top_p=0.95, top_k=0, max_new_tokens=64,
                    num_return_sequences=10, eos_token_id=form.stop, pad_token_id=form.stop[0],
                )  # fmt: skip
            done += int((out[:, batch["input_ids"].shape[1] :] != form.stop[0]).sum())
        return done, []

    return [Side("claimbook", ours), Side("model.generate a persona", plain)]

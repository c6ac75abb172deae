"""Tune a constant prefix (prompt tuning, Lester et al. 2021, 2104.08691), which is independent of the text.

The control shows how far a prefix of the same size gets with the distribution of answers alone.
"""

from __future__ import annotations

import pandas as pd
import torch
from peft import PromptTuningConfig
from peft.tuners.prompt_tuning import PromptEmbedding
from torch import Tensor
from tqdm.auto import tqdm

from helpers.base.rng import stream_seed
from helpers.lm.descent import Descent, check_finite
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.losses import teacher_logits, token_nll
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.train import Taught, batches, learning_rate
from helpers.system import curves


def tune(lm: FrozenLM, taught: Taught, p: WireCell) -> tuple[Tensor, pd.DataFrame]:
    """Train ``p.latents`` embeddings on aligned, masked labels; return them [M, D] and the loss of every step.

    They begin as embeddings of tokens drawn from the vocabulary (stream "prompt" of the seed).
    """
    composer = Composer.of(p).aligned()
    config = PromptTuningConfig(
        num_virtual_tokens=p.latents,
        token_dim=lm.width,
        num_transformer_submodules=1,
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    with torch.random.fork_rng():  # PEFT draws from the global generator
        torch.manual_seed(stream_seed(p.seed, "prompt", lm.side))
        prompt = PromptEmbedding(config, lm.embedding).to(lm.device)
    descent = Descent(prompt.parameters(), lr=p.lr)
    every = torch.arange(p.latents, device=lm.device)
    rows = []
    plan = enumerate(tqdm(list(batches(len(taught.texts), p)), desc=f"prompt {lm.side}", leave=False))
    with curves.sent(f"prompt {lm.side} s{p.seed}", p.model_dump(mode="json")) as send:
        for step, picked in plan:
            context, lengths = composer.contexts(lm, prompt(every).expand(len(picked), -1, -1), latent=True)
            labels = composer.labels(lm, [taught.answers[lm.side][i] for i in picked])
            loss = token_nll(teacher_logits(lm, context, lengths, labels), labels.targets)[labels.counted].mean()
            check_finite(loss.item(), step + 1, p.lr)
            loss.backward()
            descent.step(learning_rate(step, p))
            rows.append({"step": step + 1, "side": lm.side, "loss": loss.item()})
            send(step + 1, rows[-1])
    return prompt(every).detach(), pd.DataFrame(rows)

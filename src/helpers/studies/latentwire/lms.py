"""The frozen language models: what the wing needs of each, and what it refuses to guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from helpers.base.errors import DataError, ModelError
from helpers.base.files import DATA, sha256_json
from helpers.lm import models
from helpers.studies.latentwire.arms import SIDES

POCKET = {"pocket-char": DATA / "latentwire" / "char", "pocket-syllable": DATA / "latentwire" / "syllable"}
"""The wing's own presets; any other name is a preset of `models`, a local folder or a hub id."""


@dataclass(frozen=True)
class FrozenLM:
    """One reader. ``end`` is supervised and stops decoding, ``pad`` fills short answers, ``bos`` may not exist."""

    side: str
    name: str
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    decoder: nn.Module = field(repr=False)
    head: nn.Module = field(repr=False)
    embedding: nn.Module = field(repr=False)
    end: int
    pad: int
    bos: int | None
    device: torch.device

    @property
    def width(self) -> int:
        """Size D of an embedding."""
        return self.decoder.config.hidden_size

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text`` without any special token; ``DataError`` when a part of it has no token."""
        found = self.tokenizer(text, add_special_tokens=False).input_ids
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in found:
            raise DataError(f"{self.name} has no token for a part of {text!r}: use a model that can spell it.")
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def embed(self, ids_bt: Tensor) -> Tensor:
        """What the model itself makes of token ids, [B, T] -> [B, T, D], any scaling by the layer included."""
        return self.embedding(ids_bt.to(self.device))

    def hidden(self, embeds_btd: Tensor, **kwargs: Any) -> Any:
        """Output of the decoder on embeddings, in the model's own number type."""
        return self.decoder(inputs_embeds=embeds_btd.to(self.decoder.dtype), **kwargs)


def facts(name: str, *, revision: str | None, device: str, dtype: str) -> dict[str, Any]:
    """The ``model`` entry of one reader, without loading it."""
    found = models.facts(_place(name), revision=revision, device=device, dtype=_number_type(name, dtype))
    return found | ({"name": name, "source": f"data/latentwire/{POCKET[name].name}"} if name in POCKET else {})


def pair_facts(both: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ``model`` entry of a run on two readers: one content hash for the pair, the size of the larger."""
    return {
        "name": " + ".join(one["name"] for one in both),
        "sha256": sha256_json([one["sha256"] for one in both]),
        "parameters": max(one["parameters"] for one in both),
        "dtype": "+".join(dict.fromkeys(one["dtype"] for one in both)),
        "device": both[0]["device"],
        "readers": dict(zip(SIDES, both, strict=True)),
    }


def load(side: str, name: str, *, revision: str | None, device: str, dtype: str) -> FrozenLM:
    """Load the reader ``name``; raises ``ModelError`` unless it can be a reader (see `reader`)."""
    loaded = models.load(_place(name), revision=revision, device=device, dtype=_number_type(name, dtype))
    return reader(side, name, loaded.model, loaded.tokenizer)


def reader(side: str, name: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> FrozenLM:
    """``model`` as a reader; ``ModelError`` when it has no embedding layer to calibrate on or no end token."""
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if embedding is None:
        raise ModelError(
            f"{name} has no input embedding layer, so a prefix cannot be calibrated to it: use a causal language model "
            "that reads token embeddings."
        )
    decoder, head = models.decoder_and_head(model)
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError(f"The tokenizer of {name} has no end token, so no answer would ever end: set its eos_token.")
    # Without a padding token of its own the end token pads, as it is commonly done for Llama.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    device = next(model.parameters()).device
    return FrozenLM(side, name, tokenizer, decoder, head, embedding, end, pad, tokenizer.bos_token_id, device)


def check_place(name: str, revision: str | None) -> None:
    """Raise ``ModelError`` where the files of the reader ``name`` are not there or not whole."""
    models.local_folder(_place(name), revision)


def _place(name: str) -> str:
    return str(POCKET[name]) if name in POCKET else name


def _number_type(name: str, dtype: str) -> str:
    # The pocket models are fp32 everywhere, so that their records agree between machines as far as they can.
    return "float32" if name in POCKET and dtype == "auto" else dtype


def embedding_rms(lm: FrozenLM, texts: Sequence[str]) -> float:
    """Root mean square of what the first block of ``lm`` sees, over the tokens of ``texts``.

    Measured on the output of the embedding layer and not on its weights: Gemma multiplies by sqrt(D) in between.
    """
    with torch.no_grad():
        squares = [lm.embed(torch.tensor([lm.ids(text)])).float().square().mean(-1).flatten() for text in texts]
    return torch.cat(squares).mean().sqrt().item()

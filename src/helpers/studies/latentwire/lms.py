"""The frozen language models that read latents, and what they must have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.base.errors import DataError, ModelError
from helpers.base.files import DATA, sha256_json
from helpers.lm import models
from helpers.lm.asking import tokens_of
from helpers.lm.ends import configured_ends
from helpers.lm.parts import decoder_and_head
from helpers.studies.latentwire.arms import SIDES

POCKET = {"pocket-char": DATA / "latentwire" / "char", "pocket-syllable": DATA / "latentwire" / "syllable"}
"""The study's own presets. Any other name is a preset of `models`, a local folder or a hub id."""


@dataclass(frozen=True)
class FrozenLM:
    """One reader. ``end`` is supervised, each of ``ends`` stops decoding, ``pad`` fills short answers, ``bos`` may not
    exist."""

    side: str
    name: str
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    model: PreTrainedModel = field(repr=False)
    decoder: PreTrainedModel = field(repr=False)
    head: nn.Module = field(repr=False)
    embedding: nn.Module = field(repr=False)
    end: int
    pad: int
    bos: int | None
    device: torch.device
    ends: tuple[int, ...]

    @property
    def width(self) -> int:
        """The size D of an embedding."""
        return self.decoder.config.hidden_size

    def ids(self, text: str) -> list[int]:
        """Tokenize ``text`` without special tokens. Raises ``DataError`` if a part of it has no token."""
        return self.known(tokens_of(self.tokenizer, text), text)

    def known(self, ids: list[int], text: str) -> list[int]:
        """Return ``ids``, those of ``text``. Raises ``DataError`` if a part of it has no token."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise DataError(f"{self.name} has no token for a part of {text!r}. Use a model that can spell it.")
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Decode token ids into text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def embed(self, ids_bt: Tensor) -> Tensor:
        """Embed token ids [B, T] into [B, T, D], with any scaling by the model's own layer."""
        return self.embedding(ids_bt.to(self.device))

    def hidden(self, embeds_btd: Tensor, **kwargs: Any) -> Any:
        """Run the decoder on embeddings, in the model's own dtype."""
        return self.decoder(inputs_embeds=embeds_btd.to(self.decoder.dtype), **kwargs)


def facts(name: str, *, revision: str | None, device: str, dtype: str) -> dict[str, Any]:
    """Return the ``model`` entry of one reader without loading it."""
    entry = models.facts(_place(name), revision=revision, device=device, dtype=_number_type(name, dtype))
    return entry | ({"name": name, "source": f"data/latentwire/{POCKET[name].name}"} if name in POCKET else {})


def pair_facts(both: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the ``model`` entry of a run on two readers: one hash for the pair, and the size of the larger."""
    return {
        "name": " + ".join(one["name"] for one in both),
        "sha256": sha256_json([one["sha256"] for one in both]),
        "parameters": max(one["parameters"] for one in both),
        "dtype": "+".join(dict.fromkeys(one["dtype"] for one in both)),
        "device": both[0]["device"],
        "readers": dict(zip(SIDES, both, strict=True)),
    }


def load(side: str, name: str, *, revision: str | None, device: str, dtype: str) -> FrozenLM:
    """Load the reader ``name``. Raises ``ModelError`` if it cannot be a reader (see `reader`)."""
    loaded = models.load(_place(name), revision=revision, device=device, dtype=_number_type(name, dtype))
    return reader(side, name, loaded.model, loaded.tokenizer)


def reader(side: str, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> FrozenLM:
    """Make a reader of ``model``.

    Raises ``ModelError`` if it has no embedding layer to calibrate on, or no end token.
    """
    get_embedding: Any = getattr(model, "get_input_embeddings", None)
    embedding = get_embedding() if get_embedding else None
    if embedding is None:
        raise ModelError(
            f"{name} has no input embedding layer, so a prefix cannot be calibrated to it. Use a causal language model "
            "that reads token embeddings."
        )
    decoder, head = decoder_and_head(model)
    special: dict[str, Any] = {name: getattr(tokenizer, f"{name}_token_id") for name in ("eos", "pad", "bos")}
    end, pad, bos = special.values()
    if end is None:
        raise ModelError(f"The tokenizer of {name} has no end token, so no answer would ever end. Set its eos_token.")
    pad = end if pad is None else pad  # as is common for Llama
    device = next(model.parameters()).device
    ends = tuple(sorted({end, *configured_ends(tokenizer, model)}))
    return FrozenLM(side, name, tokenizer, model, decoder, head, embedding, end, pad, bos, device, ends)


def has_template(lm: FrozenLM) -> bool:
    """Whether the reader's tokenizer has a chat template."""
    return bool(getattr(lm.tokenizer, "chat_template", None))


def ended_by_line(lm: FrozenLM) -> FrozenLM:
    """Return the reader with a line break for its end; any token that is a blank with a line break stops it as well.

    Raises ``ModelError`` where its tokenizer has no single token for a line break.
    """
    ids = lm.ids("\n")
    if len(ids) != 1:
        raise ModelError(f"{lm.name} spells a line break with {len(ids)} tokens, not one. Set answer_end to token.")
    pieces = lm.tokenizer.batch_decode([[token] for token in range(len(lm.tokenizer))])
    breaks = {token for token, piece in enumerate(pieces) if "\n" in piece and not piece.strip()}
    return replace(lm, end=ids[0], ends=tuple(sorted({*lm.ends, *ids, *breaks})))


def check_place(name: str, revision: str | None) -> None:
    """Raise ``ModelError`` where the files of the reader ``name`` are not there or not whole."""
    models.local_folder(_place(name), revision)


def _place(name: str) -> str:
    return str(POCKET[name]) if name in POCKET else name


def _number_type(name: str, dtype: str) -> str:
    # The pocket models are fp32 everywhere, so that their records agree between machines as far as possible.
    return "float32" if name in POCKET and dtype == "auto" else dtype


def embedding_rms(lm: FrozenLM, texts: Sequence[str]) -> float:
    """Return the root mean square of the first block's input over the tokens of ``texts``.

    Measured on the output of the embedding layer, not on its weights, because Gemma multiplies by sqrt(D) in between.
    """
    with torch.no_grad():
        squares = [lm.embed(torch.tensor([lm.ids(text)])).float().square().mean(-1).flatten() for text in texts]
    return torch.cat(squares).mean().sqrt().item()

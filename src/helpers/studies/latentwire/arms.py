"""The switches of a run, and named sets of them: the arms of the study, and stages and ablations of the log."""

from __future__ import annotations

from typing import Any, Literal, get_args

Arm = Literal[
    "fixed", "fixed_banned", "fixed_first_token", "padding_bug", "double_shift", "padding_and_shift",
    "padding_first_token", "as_published",
    "stage_a", "stage_b", "stage_a_no_bos", "stage_a_first_token", "stage_a_gain", "stage_a_sampled", "stage_a_chat",
]  # fmt: skip

FIXED: dict[str, Any] = {
    "padding": "right_masked", "label_shift": "once", "first_token_ce": 0.0, "bos_after_anchor": False,
    "prefix_gain": 1.0, "eos_ban_steps": 0, "first_token_temperature": 0.0, "first_token_top_p": 1.0,
    "anchor_mode": "text",
}  # fmt: skip
"""The recipe with every label in its right place. Its keys are the switches."""

STAGE_A: dict[str, Any] = FIXED | {"label_shift": "twice", "first_token_ce": 0.5, "bos_after_anchor": True}
"""The log after its padding fix: first-token loss, BOS after the anchor, labels still shifted twice."""

ARMS: dict[str, dict[str, Any]] = {
    "fixed": FIXED,
    "fixed_banned": FIXED | {"eos_ban_steps": 3},
    "fixed_first_token": FIXED | {"first_token_ce": 0.5},
    "padding_bug": FIXED | {"padding": "left_unmasked"},
    "double_shift": FIXED | {"label_shift": "twice"},
    "padding_and_shift": FIXED | {"padding": "left_unmasked", "label_shift": "twice"},
    "padding_first_token": FIXED | {"padding": "left_unmasked", "first_token_ce": 0.5},
    "as_published": STAGE_A | {"padding": "left_unmasked"},
    "stage_a": STAGE_A,
    "stage_b": STAGE_A | {"bos_after_anchor": False, "first_token_ce": 1.0, "prefix_gain": 1.15},
    # The log's checklist in its order: one change to stage A at a time.
    "stage_a_no_bos": STAGE_A | {"bos_after_anchor": False},
    "stage_a_first_token": STAGE_A | {"first_token_ce": 1.0},
    "stage_a_gain": STAGE_A | {"prefix_gain": 1.25},
    "stage_a_sampled": STAGE_A | {"first_token_temperature": 0.7, "first_token_top_p": 0.9},
    "stage_a_chat": STAGE_A | {"anchor_mode": "chat"},
}
SWITCHES = tuple(FIXED)

Padding = Literal["left_unmasked", "right_masked"]
Shift = Literal["twice", "once"]
AnchorMode = Literal["text", "chat", "chat_or_text"]

TITLES = {
    "fixed": "all fixed",
    "fixed_banned": "all fixed, end banned",
    "fixed_first_token": "all fixed, first-token loss",
    "padding_bug": "padding bug",
    "double_shift": "double shift",
    "padding_and_shift": "padding bug and double shift",
    "padding_first_token": "padding bug, first-token loss",
    "as_published": "as published",
    "stage_a": "stage A (padding fixed)",
    "stage_b": "stage B",
    "stage_a_no_bos": "stage A, no BOS",
    "stage_a_first_token": "stage A, first-token loss doubled",
    "stage_a_gain": "stage A, prefix gain",
    "stage_a_sampled": "stage A, first token sampled",
    "stage_a_chat": "stage A, chat anchor",
}
"""The names of the arms in tables and figures."""

Side = Literal["a", "b"]
SIDES: tuple[Side, ...] = get_args(Side)
"""The two readers of one wire, by their names in metrics and tables."""
TextChannel = Literal["text", "first_tokens", "last_tokens", "no_context"]
PrefixChannel = Literal["latent", "shuffled", "mean", "constant"]
NarrowChannel = Literal["latent_8", "latent_4"]
Channel = Literal[TextChannel, PrefixChannel, NarrowChannel]
TEXT_CHANNELS: tuple[TextChannel, ...] = get_args(TextChannel)
PREFIX_CHANNELS: tuple[PrefixChannel, ...] = get_args(PrefixChannel)
CHANNELS: tuple[Channel, ...] = (*TEXT_CHANNELS, *PREFIX_CHANNELS)
"""The possible inputs of a reader: the text, as many of its tokens as there are latents, nothing, or a prefix."""
NARROW: dict[NarrowChannel, int] = {"latent_8": 8, "latent_4": 4}
"""Latents sent with fewer bits a number than the 16 of ``latent``, where a run asks for them."""
WORDS = {
    "text": "text", "first_tokens": "first M tokens", "last_tokens": "last M tokens", "no_context": "no context",
    "latent": "latents", "latent_8": "latents at 8 bits", "latent_4": "latents at 4 bits",
    "shuffled": "another text's latents", "mean": "mean latents", "constant": "learned constant",
}  # fmt: skip
"""The names of the channels in tables and figures."""

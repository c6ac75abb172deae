"""The campaign's own triangulation (its log of 2026-06-17), shown beside ours. Nothing here was run by this project."""

from __future__ import annotations

import pandas as pd

from helpers.base.files import DATA

LABELS = {
    "checkpoint": "checkpoint",
    "validation_loss": "validation loss (nats)",
    "residual": "residual",
    "cosine_ep_bptt150": "cosine EP to BPTT-150",
    "cosine_bptt150_bptt400": "cosine BPTT-150 to BPTT-400",
    "norm_ratio": "norm ratio EP to BPTT",
    "self_cosine_ep": "EP across batches",
    "self_cosine_bptt": "BPTT across batches",
}


def campaign() -> pd.DataFrame:
    """Read one row per checkpoint of the campaign's run at width 512, from its log."""
    return pd.read_csv(DATA / "eqprop" / "campaign.csv")[list(LABELS)]

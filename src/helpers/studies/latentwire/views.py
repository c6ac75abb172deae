"""Tidy tables for the figures of notebook and page, computed from records. Figures compute nothing themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.base.errors import DataError
from helpers.base.files import DATA
from helpers.records.reading import Record, load
from helpers.stats.estimands import MODELS
from helpers.studies.latentwire import criteria
from helpers.studies.latentwire.arms import ARMS, CHANNELS, SIDES, TITLES, WORDS, Channel, Side
from helpers.studies.latentwire.criteria import Rate, Score

ORDER = list(ARMS)
HEADS = {
    "text": "text", "first_tokens": "first M", "last_tokens": "last M", "no_context": "nothing", "latent": "latents",
    "shuffled": "shuffled", "mean": "mean", "constant": "constant", "latent_8": "8 bits", "latent_4": "4 bits",
}  # fmt: skip
"""Short headings of columns. ``shuffled`` are another text's latents."""

SWITCH_HEADS = {
    "padding": "padding", "label_shift": "shift", "first_token_ce": "first-token loss", "bos_after_anchor": "BOS",
    "prefix_gain": "gain", "eos_ban_steps": "steps without end", "first_token_temperature": "sampled at",
}  # fmt: skip
"""The switches in which arms of the page differ, and their headings."""
PARTS = {"p_pad": "share of padding", "nll_real": "NLL of answer tokens", "nll_pad": "NLL of padding"}
PART_FORMATS = dict.fromkeys(("loss", "p_pad", "nll_real", "nll_pad"), ".3f") | {"largest left-over": ".1e"}
AMPLITUDES = ["scale", "prefix_rms", "embedding_rms", "ratio", "z_std"]
AMPLITUDE_FORMATS = dict.fromkeys(AMPLITUDES, ".3f")
SMOOTHED = 40
"""Steps over which a training curve is averaged, so that the curves of arms stay apart."""


PROMPTS = DATA / "latentwire" / "prompts.csv"


def prompts() -> pd.DataFrame:
    """Read how many answers each reader gave from the text, a row a number of worked examples and reader."""
    return pd.read_csv(PROMPTS)


def reader(record: Record, side: str) -> str:
    """Name a reader in figures: its letter and its model."""
    return f"reader {side}: {record.params[f'model_{side}']}"


def by_arm(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group records by arm, in the order of `arms`."""
    arms = {record.cell["arm"] for record in records}
    return {arm: [r for r in records if r.cell["arm"] == arm] for arm in ORDER if arm in arms}


def scores(
    records: Sequence[Record],
    names: Sequence[Score],
    channels: Sequence[Channel] = CHANNELS,
    sides: Sequence[Side] = SIDES,
) -> pd.DataFrame:
    """Return one row per arm, reader, channel and score, pooled over seeds, with the intervals that criteria judge.

    A channel that an arm's readers were not given has no row.
    """
    rows = []
    for arm, some in by_arm(records).items():
        for side in sides:
            key = {"arm": TITLES[arm], "side": side, "reader": reader(some[0], side)}
            for channel in channels:
                for name in names:
                    if (metric := criteria.score(some, MODELS, side, channel, name)) is None:
                        continue
                    rows.append(key | {"channel": channel, "given": HEADS[channel], "score": name} | _numbers(metric))
    return pd.DataFrame(rows)


def communication(records: Sequence[Record], score: Rate = "em") -> pd.DataFrame:
    """Return latents minus another text's latents, by arm and reader."""
    rows = []
    for arm, some in by_arm(records).items():
        for side in SIDES:
            if (metric := criteria.communication(some, MODELS, side, score)) is None:
                continue
            key = {"arm": TITLES[arm], "side": side, "reader": reader(some[0], side)}
            rows.append(key | {"label": f"{TITLES[arm]}, reader {side}"} | _numbers(metric))
    return pd.DataFrame(rows)


def training(records: Sequence[Record], name: str) -> pd.DataFrame:
    """Return the table ``name`` (``loss``, ``gradient`` or ``curve``) of each record's wire, with arm, seed, reader."""
    frames = [
        load(record.inputs["wire"]).table(name).assign(
            arm=TITLES[record.cell["arm"]], seed=record.cell["seed"],
            reader=lambda t, r=record: [reader(r, side) for side in t["side"]],
        )
        for some in by_arm(records).values() for record in some
    ]  # fmt: skip
    if not frames:
        raise DataError("There is no record to take training tables from. Run the notebook first.")
    return pd.concat(frames, ignore_index=True)


def loss_curves(records: Sequence[Record], every: int = SMOOTHED) -> pd.DataFrame:
    """Return the training loss averaged over seeds and over ``every`` steps."""
    table = training(records, "loss")
    table["step"] = (table["step"] - 1) // every * every + every
    return table.groupby(["arm", "reader", "step"], sort=False)[["loss", "nll_real", "p_pad"]].mean().reset_index()


def seed_mean(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return ``value`` by arm, reader and step: its mean over seeds, and the smallest and largest seed."""
    grouped = table.groupby(["arm", "reader", "step"], sort=False)[value]
    return grouped.agg(value="mean", low="min", high="max").reset_index()


def decomposition(records: Sequence[Record]) -> pd.DataFrame:
    """Split the loss of the last tenth of training into p_real NLL_real + p_pad NLL_pad, and what is left over."""
    table = training(records, "loss")
    table = table[table["step"] > 0.9 * table["step"].max()].copy()
    # Without padding its NLL is missing, and its summand of the loss is zero.
    padding = (table["p_pad"] * table["nll_pad"]).where(table["p_pad"] > 0, 0.0)
    table["left_over"] = (1 - table["p_pad"]) * table["nll_real"] + padding - table["loss"]
    names = ["loss", "p_pad", "nll_real", "nll_pad"]
    parts = table.groupby(["arm", "reader"], sort=False)[names].mean()
    parts["largest left-over"] = table.assign(at=table["left_over"].abs()).groupby(["arm", "reader"])["at"].max()
    return parts.reset_index()


def switches(records: Sequence[Record]) -> pd.DataFrame:
    """Return the switches of each arm, from its records."""
    return pd.DataFrame(
        [
            {"arm": TITLES[arm]} | {name: some[0].params[name] for name in SWITCH_HEADS}
            for arm, some in by_arm(records).items()
        ]
    )


def amplitudes(records: Sequence[Record]) -> pd.DataFrame:
    """Return the adapters' final scale and the RMS of prefix and embeddings by arm, averaged over seeds."""
    curve = training(records, "curve")
    last = curve[curve["step"] == curve["step"].max()]
    last = last.assign(ratio=last["prefix_rms"] / last["embedding_rms"])
    return last.groupby(["arm", "reader"], sort=False)[AMPLITUDES].mean().reset_index()


def answers(records: Sequence[Record], channel: str | None = None) -> pd.DataFrame:
    """Return every answer (of one channel) with arm and seed; those of texts once for each record that used them."""
    frames = []
    for record in records:
        text = load(record.inputs["text"])
        for one in (record, text):
            key = {"arm": record.cell["arm"], "seed": record.cell["seed"], "run": one.id}
            cell = f"{TITLES[record.cell['arm']]}, seed {record.cell['seed']}"
            frames.append(one.table("completions").assign(**key, cell=cell))
    table = pd.concat(frames, ignore_index=True)
    return table if channel is None else table[table["channel"] == channel]


def side_by_side(records: Sequence[Record], side: str, n: int = 8) -> pd.DataFrame:
    """Show the first ``n`` examples of the first seed: question, gold answer, and the answers of text and every arm."""
    seed = min(record.cell["seed"] for record in records)
    arms = by_arm([r for r in records if r.cell["seed"] == seed])
    by_channel = {arm: _by_channel(answers(some[:1]), side) for arm, some in arms.items()}
    table = next(iter(by_channel.values()))[["text"]]
    for arm, wide in by_channel.items():
        table = table.join(wide[["latent"]].rename(columns={"latent": TITLES[arm]}))
    shown = table.reset_index().sort_values("id", key=lambda ids: ids.str.extract(r"(\d+)$")[0].fillna("0").astype(int))
    heads = {"question": "sent", "gold": "answer", "text": "from text"}
    return shown.drop(columns="id").rename(columns=heads).head(n).reset_index(drop=True)


def _by_channel(table: pd.DataFrame, side: str) -> pd.DataFrame:
    return table[table["side"] == side].pivot(index=["id", "question", "gold"], columns="channel", values="text")


def wire_bytes(records: Sequence[Record]) -> pd.DataFrame:
    """Return the bytes of a message as latents and as text."""
    one = records[0]
    rows = [(WORDS["latent"], one.metric("bytes_latent")["value"]), ("UTF-8 text", one.metric("bytes_text")["value"])]
    return pd.DataFrame(rows, columns=["message", "bytes"])


FACT_TOLERANCES = {"em": 0.15, "f1": 0.15, "first1": 0.2}


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """Return the numbers that a rerun of the notebook must reproduce: scores of latents, shuffled latents and text.

    Training rounds differently on other hardware, and small differences grow over hundreds of steps. Numbers that do
    not depend on training have almost no tolerance.
    """
    rows = []
    for record in records:
        key = {"cell": f"{TITLES[record.cell['arm']]}, seed {record.cell['seed']}"}
        for side in SIDES:
            for channel in ("text", "latent", "shuffled"):
                for name, tolerance in FACT_TOLERANCES.items():
                    metric = record.metric(f"{name}_{channel}_{side}")
                    allowed = 0.01 if channel == "text" else tolerance
                    rows.append(
                        key | {"metric": f"{name}, {channel}, reader {side}", "value": metric["value"],
                               "n": metric["n"], "tolerance": allowed}
                    )  # fmt: skip
            share = record.metric(f"train_p_pad_{side}")
            rows.append(key | {"metric": f"share of padding, reader {side}", "value": share["value"],
                                "n": share["n"], "tolerance": 1e-6})  # fmt: skip
        sent = record.metric("bytes_latent")
        rows.append(key | {"metric": "bytes of a message", "value": sent["value"], "n": sent["n"], "tolerance": 0.0})
    return pd.DataFrame(rows)


def _numbers(metric: dict) -> dict:
    return {name: metric.get(name) for name in ("value", "low", "high", "k", "n")}

"""Tidy tables for the figures of notebook and page, computed from records. Figures compute nothing themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from helpers.base.errors import DataError, nearest
from helpers.records.reading import Record
from helpers.stats.estimands import MODELS
from helpers.stats.pooling import pool
from helpers.studies.actdiff import browse, readouts, topics
from helpers.studies.actdiff.criteria import by_prompt, contrast

COSINES = readouts.COSINES
TUNED_AND_CONTROLS = ("full", "lora", "mix1", "control", "control_lora")
PAIRS = (
    ("mix1", "full"), ("mix2", "full"), ("mix1_1", "full_1"), ("full", "control"), ("lora", "control_lora"),
    ("lora", "full"),
)  # fmt: skip
"""Organisms whose difference is drawn: the first minus the second."""
EARLY, LENS_POSITIONS, LENS_TOP = 32, 24, 6
"""Positions of the norms that are drawn, and positions and tokens of a lens on a page."""

NAMES = {
    "full": "full",
    "lora": "LoRA",
    "mix1": "mixed 1:1",
    "mix2": "mixed 1:2",
    "control": "control, full",
    "control_lora": "control, LoRA",
    "full_1": "full, 1 step",
    "full_10": "full, 10 steps",
    "full_few": "full, 8 documents",
    "mix1_1": "mixed 1:1, 1 step",
    "lora_r1": "LoRA rank 1",
    "lora_r16": "LoRA rank 16",
    "given": "given pair",
}
FACTS = {
    "z": 0.3, "margin": 0.15, "context_independence": 0.03, "interpolated_cosine": 0.02, "head_overlap": 0.1,
    "loss_rise_unrelated": 0.02,
}  # fmt: skip
"""Metrics that a rerun of the notebook must reproduce, with tolerances for another processor's rounding."""


def pick(records: Sequence[Record], organisms: Sequence[str] | str | None = None, **cell: object) -> list[Record]:
    """Return the records of these organisms (in this order) whose cell agrees.

    Raises ``DataError`` if there are none.
    """
    wanted = [organisms] if isinstance(organisms, str) else organisms
    chosen = [r for r in records if all(r.cell[axis] == value for axis, value in cell.items())]
    if wanted is not None:
        chosen = [r for name in wanted for r in chosen if r.cell["organism"] == name]
    if not chosen:
        have = sorted({r.cell["organism"] for r in records})
        close = nearest(str(wanted), have) if have else ""
        raise DataError(f"No record has organism {wanted} and {cell}{close}")
    return chosen


def collect(records: Sequence[Record], name: str) -> pd.DataFrame:
    """Join the table ``name`` of all records that have it, with organism and seed."""
    frames = [
        record.table(name).assign(seed=record.cell["seed"], organism=record.cell["organism"], run=record.id)
        for record in records
        if name in record.tables
    ]
    if not frames:
        raise DataError(f"None of the {len(records)} records has a table {name!r}.")
    return pd.concat(frames, ignore_index=True)


def by_organism(records: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """Pool metrics over seeds as pages do: organism, label, metric, unit, value, low, high, n (seeds)."""
    rows = []
    for organism in dict.fromkeys(r.cell["organism"] for r in records):
        members = [r for r in records if r.cell["organism"] == organism]
        for name in metrics:
            having = [r for r in members if name in r.metrics]
            interval = pool(having, name, by_prompt)
            if interval is not None:
                row = {"organism": organism, "label": NAMES[organism], "metric": name}
                row |= {"unit": having[0].metrics[name]["unit"], "n": len(having)}
                rows.append(row | {key: getattr(interval, key) for key in ("value", "low", "high")})
    if not rows:
        raise DataError(f"No record has any of the metrics {', '.join(metrics)}.")
    return pd.DataFrame(rows)


def contrasts(records: Sequence[Record], metric: str, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return paired differences of one metric between organisms, over seeds: label, value, low, high, n."""
    rows = []
    for organism, minus in pairs:
        found = contrast(records, MODELS, metric, organism, minus)
        if found is not None:
            rows.append({"label": f"{NAMES[organism]} minus {NAMES[minus]}", "metric": metric} | found)
    return pd.DataFrame(rows)


def beside(sizes: Mapping[str, Sequence[Record]], kinds: Mapping[str, str], organisms: Sequence[str]) -> pd.DataFrame:
    """``by_organism`` at several model sizes; ``kinds`` maps metrics to words, ``row`` is size, organism and kind."""
    parts = [
        by_organism([r for r in records if r.cell["organism"] in organisms], list(kinds)).assign(size=size)
        for size, records in sizes.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(kind=table["metric"].map(kinds))
    return table.assign(row=table["size"] + ", " + table["label"] + ", " + table["kind"])


def differences(sizes: Mapping[str, Sequence[Record]], metric: str) -> pd.DataFrame:
    """``contrasts`` of the `PAIRS` at several model sizes, with a row label."""
    table = pd.concat([contrasts(records, metric, PAIRS).assign(size=size) for size, records in sizes.items()])
    return table.assign(row=table["size"] + ", " + table["label"])


def topic_count() -> int:
    """How many topics the language of the pocket model has."""
    return len(topics.language().topics)


def over_seeds(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return the mean of ``value`` over seeds within ``by``, with its lowest and highest: value, low, high, seeds."""
    means = table.groupby([*by, "seed"], sort=False)[value].mean().groupby(list(by), sort=False)
    return means.agg(value="mean", low="min", high="max", seeds="size").reset_index()


def cosine_matrix(records: Sequence[Record], name: str, kind: str, layer: int | None = None) -> pd.DataFrame:
    """Average a cosine matrix over seeds: p, q, cosine. ``name`` is ``cosines`` or ``cosines_first``."""
    table = collect(records, name)
    table = table[(table["kind"] == kind) & (table["layer"] == (table["layer"].max() if layer is None else layer))]
    return table.groupby(["p", "q"])["cosine"].mean().reset_index()


def cosines(
    records: Sequence[Record], organism: str, name: str = "cosines", kinds: Sequence[str] = COSINES
) -> pd.DataFrame:
    """Cosine matrices of an organism at its fixed layer, a panel (``kind``) each, seeds averaged, ready to draw."""
    chosen = pick(records, organism)
    layer = fixed_layer(chosen[0])
    table = pd.concat([cosine_matrix(chosen, name, kind, layer).assign(kind=kind) for kind in kinds])
    return table.assign(value=table["cosine"], low=None, high=None, n=len(chosen))


def swaps(records: Sequence[Record]) -> pd.DataFrame:
    """Pool the effect of the causal swap over seeds: text, direction, value (nats), low, high, seeds."""
    table = collect(records, "swap")
    kind = table["direction"].str.replace(r" \d+$", "", regex=True)
    table = table.assign(direction=kind, effect=table["swapped"] - table["tuned"])
    found = over_seeds(table, ["organism", "text", "direction"], "effect")
    return found.assign(row=found["organism"].map(NAMES) + ", " + found["text"] + ", " + found["direction"])


def norms(records: Sequence[Record]) -> pd.DataFrame:
    """Return mean norms by position at the fixed layer, over their mean at 5+: label, position, what, value."""
    rows = []
    for record in records:
        table = record.table("positions")
        table = table[table["layer"] == fixed_layer(record)]
        for what, name in (("base activation", "base"), ("difference", "diff")):
            later = table[table["position"] >= 5][name].mean()
            row = {"label": NAMES[record.cell["organism"]], "what": what, "position": table["position"]}
            rows.append(pd.DataFrame(row | {"value": table[name] / later, "seed": record.cell["seed"]}))
    table = pd.concat(rows, ignore_index=True)
    return table.groupby(["label", "what", "position"], sort=False)["value"].mean().reset_index()


def early_norms(records: Sequence[Record]) -> pd.DataFrame:
    """``norms`` at the first positions, where they differ."""
    table = norms(records)
    return table[table["position"] < EARLY]


def directions(records: Sequence[Record]) -> pd.DataFrame:
    """Return z of the domain in every decoded direction, over seeds.

    Columns: organism, direction, row (both in words), value, low, high, seeds. Directions that a record lacks (the
    noise floor, if arithmetic agrees to the bit) are left out.
    """
    named = {"z": "mean difference", "z_later": "averaged over later positions", "z_demeaned": "without the average"}
    named |= {"z_whitened": "whitened", "z_single": "input of one token", "z_permuted": "null, other domains"}
    named |= {"z_noise": "null, noise floor"}
    table = by_organism(records, list(named))
    table = table.assign(direction=table["metric"].map(named))
    return table.assign(row=table["label"] + ": " + table["direction"])


def by_layer(records: Sequence[Record]) -> pd.DataFrame:
    """Return z at the fixed position by layer, over seeds: organism, layer, value, low, high, seeds, label.

    Not for headlines: the best of several layers is biased upward, and only one layer was fixed before looking.
    """
    frames = [collect([r], "places").query("position == @at", local_dict={"at": r.params["position"]}) for r in records]
    return over_seeds(pd.concat(frames).sort_values("layer"), ["organism", "layer"], "z").assign(
        label=lambda t: t["organism"].map(NAMES)
    )


def nearness(records: Sequence[Record]) -> pd.DataFrame:
    """Return how similar continuations are to the fine-tuning text (cosine of weighted token frequencies).

    One row per organism and steered model, with columns plain, difference, random.
    """
    names = [f"near_{side}_{what}" for side in ("base", "tuned") for what in ("none", "difference", "random")]
    table = by_organism(records, names)
    parts = table["metric"].str.split("_", expand=True)
    table = table.assign(model=parts[1], direction=parts[2].replace("none", "plain"))
    wide = table.pivot_table(index=["label", "model"], columns="direction", values="value", sort=False)
    return wide[["plain", "difference", "random"]].reset_index()


def nearness_at(sizes: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """``nearness`` of the narrow fine-tunes at several model sizes."""
    parts = [nearness(pick(records, ["full", "lora"])).assign(size=size) for size, records in sizes.items()]
    return pd.concat(parts)[["size", "label", "model", "plain", "difference", "random"]]


def fixed_layer(record: Record) -> int:
    """Return the layer of the headline scores of a record."""
    return record.results["fixed"]["layer"]


def first_components(records: Sequence[Record]) -> pd.DataFrame:
    """Return the first component: label, positions, kind (SVD or PCA), share, overlap, cosine_mean, cosine_first."""
    table = collect(records, "components")
    table = table[table["component"] == 0].assign(kind=lambda t: t["centred"].map({False: "SVD", True: "PCA"}))
    columns = ["share", "overlap", "cosine_mean", "cosine_first"]
    means = table.groupby(["organism", "positions", "kind"], sort=False)[columns].mean().reset_index()
    return means.assign(label=means["organism"].map(NAMES))


def component_tokens(records: Sequence[Record]) -> pd.DataFrame:
    """Return the tokens of the first record's first components: positions, kind, component, share, tokens."""
    table = collect(records[:1], "components")
    table = table.assign(kind=table["centred"].map({False: "SVD", True: "PCA"})).round({"share": 3})
    return table[["positions", "kind", "component", "share", "tokens"]]


def interpolations(records: Sequence[Record]) -> pd.DataFrame:
    """Return cosine with the whole, z and raw margin at a share of the weight update, over seeds.

    Columns: organism, label, metric, share, value, low, high, seeds.
    """
    table = collect(records, "interpolation")
    named = {"cosine": "cosine with the whole", "z": "z (sd)", "margin": "raw margin (logits)"}
    rows = [table[["organism", "seed", "share"]].assign(metric=named[m], value=table[m]) for m in named]
    means = over_seeds(pd.concat(rows, ignore_index=True), ["organism", "metric", "share"], "value")
    return means.assign(label=means["organism"].map(NAMES))


def steering(records: Sequence[Record]) -> pd.DataFrame:
    """Return the rate of domain tokens by organism, steered side and direction, pooled over seeds, with a row label."""
    names = [f"steer_{side}_{what}" for side in ("base", "tuned") for what in ("none", "difference", "random")]
    table = by_organism(records, names)
    parts = table["metric"].str.split("_", expand=True)
    table = table.assign(side=parts[1], direction=parts[2])
    return table.assign(row=table["label"] + ", " + table["side"] + " model, " + table["direction"])


def examples(records: Sequence[Record], name: str, *, n: int, **where: object) -> list[str]:
    """Return the first ``n`` texts of a table whose columns have these values, in the order of drawing."""
    table = collect(records, name)
    for column, value in where.items():
        table = table[table[column] == value]
    return table["text"].head(n).tolist()


def continuations(sizes: Mapping[str, Sequence[Record]], organism: str, n: int = 3) -> pd.DataFrame:
    """The first continuations of the base model under the first seed, plain and steered: model, direction, text."""
    rows = [
        {"model": size, "direction": what, "continuation": text}
        for size, records in sizes.items()
        for what in ("none", "difference", "random")
        for text in examples(pick(records, organism)[:1], "steering", side="base", direction=what, n=n)
    ]
    return pd.DataFrame(rows)


def lens(records: Sequence[Record], organism: str, name: str, caption: str) -> Markup:
    """Top tokens of an organism's mean difference under the first seed, those of its domain marked, with a slider."""
    record = pick(records, organism)[0]
    inside = record.table("readout").query("inside").index.tolist()
    rows = browse.lens_rows(record.table("tokens"), inside=inside, top=LENS_TOP)
    return browse.lens_page_html(rows[rows["position"] < LENS_POSITIONS], name, fixed_layer(record), caption)


def summary(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per organism: z, raw margin, offset energy (5+), first component's share, loss rise."""
    columns = {"z": "z", "margin": "raw margin", "offset_energy": "offset energy", "svd_share": "first component"}
    columns |= {"loss_rise_unrelated": "loss rise, unrelated"}
    table = by_organism(records, list(columns))
    wide = table.pivot(index="label", columns="metric", values="value")[list(columns)].rename(columns=columns)
    return wide.loc[list(dict.fromkeys(table["label"]))].reset_index(names="organism")


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """Return the numbers that a rerun must reproduce: organism, metric, value (over seeds), tolerance, n (seeds)."""
    table = by_organism(records, list(FACTS)).assign(tolerance=lambda t: t["metric"].map(FACTS))
    return table[["organism", "metric", "value", "tolerance", "n"]].astype({"value": float})
